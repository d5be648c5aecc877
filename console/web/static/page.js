// Refreshes the board while the page is looked at. Only parts that changed are replaced, so that what is being
// read, scrolled or focused stays where it is. Without this script the page reloads itself now and then.
"use strict";

(() => {
  const board = document.getElementById("board");
  const live = document.getElementById("live");
  const pause = document.getElementById("pause");
  const seconds = Number(document.body.dataset.refresh) || 5;
  const focusable = "a, button, [tabindex]";
  let paused = false;
  let timer = 0;

  // Announced only when it becomes another text: a status that changes every time would never be silent.
  const say = (text, off) => {
    if (live.textContent !== text) live.textContent = text;
    live.classList.toggle("off", off);
  };

  const replacePart = (old, fresh) => {
    const places = [...old.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
    const focused = [...old.querySelectorAll(focusable)].indexOf(document.activeElement);
    old.replaceWith(fresh);
    fresh.querySelectorAll(".scroll").forEach((one, place) => { one.scrollLeft = places[place] || 0; });
    if (focused >= 0) fresh.querySelectorAll(focusable)[focused]?.focus({ preventScroll: true });
  };

  const isSelected = (part) => {
    const selection = document.getSelection();
    return Boolean(selection) && !selection.isCollapsed && selection.containsNode(part, true);
  };

  const update = (text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html").body;
    const known = new Map([...board.children].map((one) => [one.id || one.className, one]));
    const wanted = [...fresh.children].map((one) => {
      const old = known.get(one.id || one.className);
      if (!old) return document.adoptNode(one);
      if (old.outerHTML === one.outerHTML || isSelected(old)) return old;
      const adopted = document.adoptNode(one);
      replacePart(old, adopted);
      return adopted;
    });
    for (const one of [...board.children]) if (!wanted.includes(one)) one.remove();
    wanted.forEach((one, place) => {
      if (board.children[place] !== one) board.insertBefore(one, board.children[place] || null);
    });
  };

  const refresh = async () => {
    clearTimeout(timer);
    if (paused || document.hidden) return;
    try {
      const answer = await fetch("/board", { cache: "no-store", signal: AbortSignal.timeout(20000) });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const text = await answer.text();
      if (paused) return;
      update(text);
      say(`updates every ${seconds} s`, false);
    } catch (error) {
      say("the console does not answer: what is shown is old", true);
    }
    timer = setTimeout(refresh, 1000 * seconds);
  };

  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    if (paused) say("updates are paused", false);
    refresh();
  });
  document.addEventListener("visibilitychange", refresh);
  live.parentElement.hidden = false;
  say(`updates every ${seconds} s`, false);
  timer = setTimeout(refresh, 1000 * seconds);
})();
