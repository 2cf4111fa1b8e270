// Earlier chats, stored in this browser only: the list, and the id of the open chat.
(() => {
  const KEY = "manyeyes-chats";
  const MAX_CHATS = 40;
  const MAX_LENGTH = 2_000_000; // a browser stores about 5 MB per page, two bytes per character
  let open = null;

  const read = () => {
    try {
      const stored = JSON.parse(localStorage.getItem(KEY) ?? "[]");
      return Array.isArray(stored) ? stored.filter((chat) => chat && chat.id && Array.isArray(chat.messages)) : [];
    } catch {
      return [];
    }
  };
  const write = (chats) => {
    let stored = chats.slice(0, MAX_CHATS);
    while (stored.length > 1 && JSON.stringify(stored).length > MAX_LENGTH) stored = stored.slice(0, -1);
    try {
      localStorage.setItem(KEY, JSON.stringify(stored));
    } catch {
      // Storage is disabled or full: the open chat works without the list.
    }
    draw();
  };

  const draw = () => {
    const list = document.getElementById("chat-list-items");
    if (!list) return;
    const chats = read();
    list.replaceChildren(
      ...chats.map((chat) => {
        const item = document.createElement("li");
        const name = Object.assign(document.createElement("button"), { type: "button", className: "name", textContent: chat.title });
        name.dataset.chat = chat.id;
        if (chat.id === open) name.setAttribute("aria-current", "true");
        const remove = Object.assign(document.createElement("button"), { type: "button", className: "remove", textContent: "×" });
        remove.dataset.remove = chat.id;
        remove.setAttribute("aria-label", (window.manyeyesTexts?.["Delete the chat {title}"] ?? "Delete the chat {title}").replace("{title}", () => chat.title));
        item.append(name, remove);
        return item;
      }),
    );
    document.getElementById("chat-list-empty").hidden = chats.length > 0;
  };

  window.manyeyesChats = {
    // Stores the open chat after an answer, as {title, messages}.
    save(chat) {
      if (!chat?.messages?.length) return;
      open ??= crypto.getRandomValues(new Uint32Array(2)).join("-");
      write([{ id: open, ...chat }, ...read().filter((other) => other.id !== open)]);
    },
    // Returns the open chat, for the event that shows it.
    opened() {
      return read().find((chat) => chat.id === open) ?? null;
    },
    begin() {
      open = null;
      draw();
    },
  };

  document.addEventListener("click", (event) => {
    const name = event.target.closest?.("[data-chat]");
    const remove = event.target.closest?.("[data-remove]");
    if (name) {
      open = name.dataset.chat;
      draw();
      document.getElementById("chat-open").click();
      document.getElementById("chat-list").classList.remove("turned");
    } else if (remove) {
      write(read().filter((chat) => chat.id !== remove.dataset.remove));
      if (remove.dataset.remove === open) document.getElementById("new-chat").click();
    }
  });
  window.addEventListener("storage", (event) => event.key === KEY && draw()); // a change in another tab of the same browser
  const wait = new MutationObserver(() => {
    if (document.getElementById("chat-list-items")) {
      wait.disconnect();
      draw();
    }
  });
  wait.observe(document, { childList: true, subtree: true });
})();

// Saves a file that the server sent as {name, kind, text}.
window.manyeyesSave = (file) => {
  if (!file) return;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([file.text], { type: file.kind }));
  link.download = file.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
};
