/** Tabs of the session: on a small screen every panel is a tab; where there is room, some panels stand beside them always. */

const ALWAYS = [ // the first that fits; the style sheet places the panels at the same widths
  [matchMedia("(min-width: 75rem)"), ["transcript", "scenes"]],
  [matchMedia("(min-width: 60rem)"), ["transcript"]],
];

export class Tabs {
  /** list: role="tablist", of buttons "tab-NAME" that control "NAME-panel". onShow(name): after a tab is chosen. */
  constructor(list, onShow = () => {}) {
    this.list = list;
    this.onShow = onShow;
    this.tabs = [...list.querySelectorAll('[role="tab"]')];
    this.chosen = "transcript";
    list.addEventListener("click", (event) => {
      const tab = event.target.closest('[role="tab"]');
      if (tab) this.choose(nameOf(tab));
    });
    list.addEventListener("keydown", (event) => this._key(event));
    for (const [query] of ALWAYS) query.addEventListener("change", () => this.draw());
    this.draw();
  }

  /** Show the panel `name`, if it is not beside the tabs already. */
  choose(name) {
    if (this._always().includes(name)) return;
    this.chosen = name;
    this.draw();
    this.onShow(name);
  }

  /** Whether the panel `name` can be seen. */
  shows(name) {
    return this._always().includes(name) || this.chosen === name;
  }

  draw() {
    const always = this._always();
    if (always.includes(this.chosen)) this.chosen = "ask";
    for (const tab of this.tabs) {
      const [name, panel] = [nameOf(tab), document.getElementById(tab.getAttribute("aria-controls"))];
      const beside = always.includes(name);
      const selected = name === this.chosen;
      tab.hidden = beside;
      tab.setAttribute("aria-selected", String(selected));
      tab.tabIndex = selected ? 0 : -1;
      panel.hidden = !beside && !selected;
      if (beside) panel.removeAttribute("role");
      else panel.setAttribute("role", "tabpanel");
    }
  }

  _always() {
    return ALWAYS.find(([query]) => query.matches)?.[1] ?? [];
  }

  _key(event) {
    const there = this.tabs.filter((tab) => !tab.hidden);
    const index = there.findIndex((tab) => nameOf(tab) === this.chosen);
    const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: there.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const tab = there[(to + there.length) % there.length];
    this.choose(nameOf(tab));
    tab.focus();
  }
}

function nameOf(tab) {
  return tab.id.replace("tab-", "");
}
