"use strict";
(() => {
  const byId = (id) => document.getElementById(id);

  // Colours: what was chosen is kept where the browser keeps anything for files.
  const themes = [...document.querySelectorAll("input[name=theme]")];
  try {
    const kept = localStorage.getItem("batchllm-theme");
    for (const theme of themes) theme.checked = theme.value === (kept || "auto");
    for (const theme of themes) theme.addEventListener("change", () => localStorage.setItem("batchllm-theme", theme.value));
  } catch { /* no storage: the choice lasts as long as the page */ }

  // Navigation: the section that is being read.
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const seen = new Set();
  const watch = new IntersectionObserver((changes) => {
    for (const change of changes) change.isIntersecting ? seen.add(change.target.id) : seen.delete(change.target.id);
    let isFirst = true;
    for (const [id, link] of links) {
      if (seen.has(id) && isFirst) { link.setAttribute("aria-current", "true"); isFirst = false; }
      else link.removeAttribute("aria-current");
    }
  }, { rootMargin: "-15% 0px -60% 0px" });
  for (const id of links.keys()) { const section = byId(id); if (section) watch.observe(section); }

  // Rows: the same markup as the template's, made from the data of all that are listed.
  const data = byId("entries-data");
  if (!data) return;
  const rows = JSON.parse(data.textContent);
  const head = JSON.parse(byId("entries-head").textContent);
  const list = byId("entries"), tally = byId("tally"), more = byId("more"), form = byId("filters");
  const PAGE = 100;
  let found = rows, shown = 0;

  const make = (tag, name, ...inside) => {
    const node = document.createElement(tag);
    if (name) node.className = name;
    node.append(...inside);
    return node;
  };
  const foreign = (text) => make("bdi", "", text);
  const start = (text, chars) => (text.length > chars ? [...text].slice(0, chars).join("") : text);
  const words = (name) => name.replaceAll("_", " ");
  const named = (places) => places.flatMap((place, at) => (at ? [", "] : []).concat(foreign(head.names[place])));

  const summary = (row) => {
    const key = row.key ?? `row ${row.row}`;
    const mark = make("span", "mark");
    mark.setAttribute("aria-hidden", "true");
    const votes = row.groups.slice(0, 6).map(([value, who, isConsensus, , leads]) =>
      make("span", isConsensus || (leads && row.status === "tied") ? "vote chosen" : "vote",
        foreign(start(value, 40)), ...(head.is_number && who.length < 2 ? [] : [make("i", "", String(who.length))])));
    if (row.groups.length > 6) votes.push(make("span", "vote more", `${row.groups.length - 6} more`));
    if (row.gold !== undefined) {
      const verdict = row.correct === undefined ? "" : row.correct ? " right" : " wrong";
      votes.push(make("span", `gold${verdict}`, "gold ", foreign(start(row.gold, 40))));
    }
    const lead = head.lead === null ? "" : start(row.carried[head.lead] ?? "", 220);
    return make("summary", "",
      make("span", "who", mark, make("span", "id", foreign(key)), make("span", "state", words(row.status))),
      make("span", "lead", foreign(lead)), ...(row.reason === undefined ? [] : [make("span", "why", foreign(row.reason))]),
      make("span", "votes", ...votes));
  };

  const line = (name, title, inside, isForeign) => {
    const term = make("dt", "", title);
    if (isForeign) term.dir = "auto";
    return make("div", name, term, make("dd", "", ...inside));
  };

  const details = (row) => {
    const inside = make("div", "inside");
    const carried = make("dl", "carried");
    head.carried.forEach((column, at) => {
      if (row.carried[at] === null) return;
      const value = make("dd", "", row.carried[at]);
      value.dir = "auto";
      carried.append(make("div", [...row.carried[at]].length > 60 ? "long" : "", make("dt", "", foreign(column)), value));
    });
    const ballots = make("dl", "ballots");
    for (const [value, who, isConsensus, isGold] of row.groups)
      ballots.append(line(`${isConsensus ? "chosen" : ""}${isGold ? " hit" : ""}${isGold === false ? " miss" : ""}`, value, named(who), true));
    for (const [state, who] of row.absent) ballots.append(line("none", words(state), named(who), false));
    inside.append(carried, ballots, make("p", "small", foreign(row.facts)));
    return inside;
  };

  // What stands below the line of a row is made when it is opened.
  const entry = (row) => {
    const node = make("details", `entry ${row.status}`, summary(row));
    node.addEventListener("toggle", () => { if (node.open && !node.querySelector(".inside")) node.append(details(row)); });
    return make("li", "", node);
  };

  const show = () => {
    const next = found.slice(shown, shown + PAGE);
    list.append(...next.map(entry));
    shown += next.length;
    const left = found.length - shown;
    const of = found.length === rows.length ? `${rows.length.toLocaleString("en")} listed` : `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} listed fit`;
    tally.textContent = found.length ? `${of}${left ? `; the first ${shown.toLocaleString("en")} are shown` : ""}.` : "No row that is listed fits.";
    more.hidden = !left;
    more.textContent = `Show ${Math.min(PAGE, left)} more`;
  };

  const searched = new Map();
  const text = (row) => {
    if (!searched.has(row)) {
      const parts = [row.key, row.reason, row.gold, row.consensus, ...row.carried, ...row.groups.map(([value]) => value)];
      searched.set(row, parts.filter((part) => part != null).join("\n").toLowerCase());
    }
    return searched.get(row);
  };
  const vote = (row, voter) => row.groups.find(([, who]) => who.includes(voter));
  const isSplit = (row, first, second) => {
    if (first === "" && second === "") return true;
    const one = vote(row, Number(first === "" ? second : first));
    if (!one) return false;
    if (first === "" || second === "") return row.groups.length > 1;
    const other = vote(row, Number(second));
    return other !== undefined && other !== one;
  };
  const orders = {
    margin: (a, b) => (a.margin ?? 0) - (b.margin ?? 0),
    entropy: (a, b) => (b.entropy ?? 0) - (a.entropy ?? 0),
    row: (a, b) => a.row - b.row,
  };

  const search = () => {
    const wanted = byId("search").value.trim().toLowerCase(), status = byId("status").value;
    const first = byId("first").value, second = byId("second").value, wrong = byId("wrong");
    found = rows.filter((row) => (!status || row.status === status) && (!wrong?.checked || row.correct === false)
      && isSplit(row, first, second) && (!wanted || text(row).includes(wanted)));
    const order = orders[byId("order").value];
    if (order) found = found.toSorted(order);
    shown = 0;
    list.replaceChildren();
    show();
  };

  let waiting;
  form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(search, 120); });
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    const at = shown;
    show();
    list.children[at]?.querySelector("summary").focus({ preventScroll: true });
  });
  form.hidden = false;
  list.replaceChildren();
  show();
})();
