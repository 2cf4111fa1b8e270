// Buttons that need no server: dark or light, and the side panels.
(() => {
  const remembered = localStorage.getItem("manyeyes-theme");
  const dark = () => document.body.classList.contains("dark");
  const paint = (mode) => document.body.classList.toggle("dark", mode === "dark");

  if (remembered) {
    // Gradio sets the class from the system's preference while it mounts; this restores the user's choice.
    const restore = () => { if (dark() !== (remembered === "dark")) paint(remembered); };
    const watch = new MutationObserver(restore);
    watch.observe(document.body, { attributes: true, attributeFilter: ["class"] });
    restore();
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

// Each language is a separate page. A cookie stores the choice for the next visit.
document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[data-language]");
  if (link) document.cookie = `manyeyes-language=${link.dataset.language};path=/;max-age=31536000;samesite=lax`;
});

// Shows who is logged in. This cookie is for display only; the server checks a signed cookie.
const showUser = (element) => {
  const name = document.cookie.split("; ").find((cookie) => cookie.startsWith("manyeyes-user="))?.slice("manyeyes-user=".length);
  if (!element || !name || !element.hidden) return;
  element.textContent = `${decodeURIComponent(name).replaceAll('"', "")} · ${window.manyeyesTexts?.["Log out"] ?? "Log out"}`;
  element.hidden = false;
};

// Accessible names for elements that Gradio leaves without a name, for screen readers.
(() => {
  const translate = (text) => window.manyeyesTexts?.[text] ?? text;
  const names = [
    ["#question textarea", () => translate("Your question")],
    [".askbox textarea", () => translate("Your question to all models")],
    [".overflow-menu > button", () => translate("More tabs")],
    ["#chat .image-container > button:not([aria-label])", () => translate("Enlarge the image")],
    ["#chat .image-frame img[alt='']", (image) => decodeURIComponent(image.src.split("/").pop())],
  ];
  const name = () => {
    showUser(document.querySelector("a.login-name"));
    for (const [selector, nameOf] of names) {
      for (const element of document.querySelectorAll(selector)) {
        const attribute = element.tagName === "IMG" ? "alt" : "aria-label";
        if (!element.getAttribute(attribute)) element.setAttribute(attribute, nameOf(element));
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
