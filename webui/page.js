// The two buttons of the page that need no server: dark or light, and the settings panel.
(() => {
  const remembered = localStorage.getItem("manyeyes-theme");
  const dark = () => document.body.classList.contains("dark");
  const paint = (mode) => document.body.classList.toggle("dark", mode === "dark");

  if (remembered) {
    // Gradio sets the class from the system's preference while it mounts; the reader's own choice comes after it.
    const keep = () => { if (dark() !== (remembered === "dark")) paint(remembered); };
    const watch = new MutationObserver(keep);
    watch.observe(document.body, { attributes: true, attributeFilter: ["class"] });
    keep();
    setTimeout(() => watch.disconnect(), 5000);
    document.addEventListener("click", () => watch.disconnect(), { capture: true, once: true });
  }

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") document.querySelectorAll(".sheet.turned").forEach((sheet) => sheet.classList.remove("turned"));
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest(".theme-toggle")) {
      const mode = dark() ? "light" : "dark";
      localStorage.setItem("manyeyes-theme", mode);
      paint(mode);
    }
    const toggle = event.target.closest(".side-toggle");
    if (toggle) {
      const side = document.getElementById(toggle.dataset.side);
      side.classList.toggle("turned");
      toggle.setAttribute("aria-expanded", String(getComputedStyle(side).display !== "none"));
    }
  });
})();

// Another language is another page; which one was chosen is remembered for the next visit.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-language]");
  if (link) document.cookie = `manyeyes-language=${link.dataset.language};path=/;max-age=31536000;samesite=lax`;
});

// Who is logged in; the cookie is for show, the server believes another one.
const showUser = (element) => {
  const name = document.cookie.split("; ").find((one) => one.startsWith("manyeyes-user="))?.slice("manyeyes-user=".length);
  if (!element || !name || !element.hidden) return;
  element.textContent = `${decodeURIComponent(name).replaceAll('"', "")} · ${window.manyeyesWords?.["Log out"] ?? "Log out"}`;
  element.hidden = false;
};

// Names for what Gradio leaves without one, for people who listen to the page.
(() => {
  const say = (text) => window.manyeyesWords?.[text] ?? text;
  const names = [
    ["#question textarea", () => say("Your question")],
    [".askbox textarea", () => say("The question to all of them")],
    [".overflow-menu > button", () => say("More tabs")],
    ["#chat .image-container > button:not([aria-label])", () => say("Enlarge the picture")],
    ["#chat .image-frame img[alt='']", (image) => decodeURIComponent(image.src.split("/").pop())],
  ];
  const name = () => {
    showUser(document.querySelector("a.who"));
    for (const [selector, words] of names) {
      for (const element of document.querySelectorAll(selector)) {
        const attribute = element.tagName === "IMG" ? "alt" : "aria-label";
        if (!element.getAttribute(attribute)) element.setAttribute(attribute, words(element));
      }
    }
  };
  let due = false;
  new MutationObserver(() => {
    if (due) return;
    due = true;
    setTimeout(() => { due = false; name(); }, 300);
  }).observe(document, { childList: true, subtree: true });
})();
