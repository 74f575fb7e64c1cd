// Key handling for answering and adjudicating that the framework lacks. It guarantees that an answer counts for the
// utterance on screen. This text is fixed: nothing that a person has written is inserted into it.
(() => {
  if (window.annotatorKeys) return;
  window.annotatorKeys = true;

  const MOMENT = 120; // ms that an utterance must have been on screen; guards against double key presses
  const PATIENCE = 3000; // ms after which a key counts again although no new utterance has appeared
  const CLICKS = { "?": ".st-key-keys button", q: ".st-key-unsure input" };
  const FIELDS = { m: ".st-key-comment input", "/": "[class*='st-key-search-'] input" };
  const ANSWERS = ["[class*='st-key-label-'] button", ".st-key-none-fits button", ".st-key-skip button",
    "[class*='st-key-adjudicate-'] button", ".st-key-later button"].join();
  const TEXT_FIELDS = "input[type=text], input[type=number], input:not([type]), textarea, [role=combobox]";
  const DIALOG = "[role=dialog]";

  let asked = null, shown = null, since = 0, answered = -PATIENCE, marked = null, wanted = null, opening = null;
  const reading = () => document.querySelector("[data-asked]");
  const stop = (event) => { event.preventDefault(); event.stopImmediatePropagation(); };
  const tooSoon = () => performance.now() - since < MOMENT || performance.now() - answered < PATIENCE;

  const answers = () => JSON.parse(reading().dataset.keys); // key -> name of its button
  const answering = (key) => document.querySelector(`.st-key-${answers()[key]} button`);
  const find = (places, key) => places[key] && document.querySelector(places[key]);

  // Opening a group takes a moment. Keys typed meanwhile are meant for what it holds, so they wait until that is shown.
  const level = () => `${reading()?.dataset.asked} ${reading()?.dataset.place}`;
  const isOpening = () => opening?.level === level() && performance.now() - opening.since < PATIENCE;
  const opens = (key) => answers()[key]?.startsWith("group-");

  function press(key, typed) {
    if (opens(key)) opening = { level: level(), since: performance.now(), typed };
    wanted = { key, asked: reading().dataset.asked };
    obey();
  }

  function resume() {
    const [key, ...typed] = opening.typed, same = opening.level.startsWith(`${reading()?.dataset.asked} `);
    opening = null;
    if (same && key in answers()) press(key, typed);
  }

  // A key may be pressed before its button is drawn or before the framework has bound the key to it. So the button is
  // clicked as soon as it exists, for the same utterance and until that is answered.
  function obey() {
    const { key } = wanted, same = reading()?.dataset.asked === wanted.asked;
    const clicked = same ? answering(key) ?? find(CLICKS, key) : null, entered = same ? find(FIELDS, key) : null;
    if (!same || clicked || entered) wanted = null;
    clicked?.click();
    entered?.focus();
  }

  // Mark where text extends beyond its area; the style fades it there.
  function fade(place) {
    if (!place) return;
    place.toggleAttribute("data-above", place.scrollTop > 1);
    place.toggleAttribute("data-below", place.scrollHeight - place.clientHeight - place.scrollTop > 1);
  }
  addEventListener("scroll", (event) => event.target === reading() && fade(event.target), true);
  addEventListener("resize", () => fade(reading()));

  function settle() {
    if (wanted) obey();
    if (opening && !isOpening()) resume();
    const here = document.querySelector(".transcript .here");
    if (here && here !== marked) here.scrollIntoView({ block: "center" });
    marked = here;
    const place = reading();
    if (!place || (place === shown && place.dataset.asked === asked)) return;
    shown = place;
    if (place.dataset.asked !== asked) {
      asked = place.dataset.asked;
      since = performance.now();
      answered = -PATIENCE;
    }
    const text = place.querySelector(".utterance");
    if (!text) return; // nothing to scroll
    const long = text.offsetHeight > place.clientHeight;
    place.scrollTop = long ? text.offsetTop - place.offsetTop : place.scrollHeight;
    fade(place);
  }
  new MutationObserver(settle).observe(document.body, { childList: true, subtree: true, attributes: true,
    attributeFilter: ["data-asked", "data-place"] });
  settle(); // the page may be complete already

  function guard(event) {
    if (event.repeat || tooSoon()) return stop(event);
    answered = performance.now();
    wanted = null;
  }

  addEventListener("keydown", (event) => {
    const place = reading();
    if (!place || event.ctrlKey || event.metaKey || event.altKey) return;
    const field = event.target.closest?.(TEXT_FIELDS);
    if (field) {
      const leaves = event.key === "Escape" || (event.key === "Enter" && field.matches(FIELDS.m));
      if (leaves) setTimeout(() => field.blur());
      return;
    }
    const key = event.key.toLowerCase();
    wanted = null;
    if (document.querySelector(DIALOG)) {
      if (key.length === 1 && key !== " ") stop(event); // nothing is answered behind a dialog
      return;
    }
    if (event.repeat && key === "u") return stop(event);
    if (key === "arrowdown" || key === "arrowup") place.scrollBy({ top: key === "arrowdown" ? 60 : -60 });
    if (isOpening() && (key.length === 1 || key === "backspace")) {
      if (!event.repeat) opening.typed.push(key);
      return stop(event);
    }
    const isAnswer = key in answers();
    if (!isAnswer && !(key in CLICKS) && !(key in FIELDS)) return;
    stop(event);
    if (isAnswer && (event.repeat || tooSoon())) return;
    press(key, []);
  }, true);

  addEventListener("click", (event) => {
    if (reading() && event.target.closest?.(ANSWERS)) guard(event);
  }, true);
})();
