(id, most) => {
  const root = document.getElementById(id), body = root.querySelector("tbody"), rows = [...body.rows];
  const said = root.querySelector("[role=status]"), whole = root.querySelector(".pw-whole");
  const selects = [...root.querySelectorAll("select")], words = root.querySelector("input[type=search]");
  const fields = words ? [...selects, words] : selects;
  const heads = selects.map((select) => root.querySelector(`th[data-key="${select.dataset.key}"]`));
  const place = (row, select) => row.dataset[select.dataset.key];
  const narrow = matchMedia("(max-width: 575px)").matches;
  let all = !narrow || rows.length <= most;
  const text = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  function choose() {
    const asked = (words ? words.value : "").toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = rows.filter((row) => selects.every((select) => !select.value || select.value === place(row, select))
      && asked.every((word) => text.get(row).includes(word)));
    const shown = new Set(all || fields.some((field) => field.value) ? chosen : chosen.slice(0, most));
    for (const row of rows) row.hidden = !shown.has(row);
    whole.hidden = shown.size === chosen.length;
    said.textContent = `${shown.size} of ${rows.length} rows`;
  }
  function write() {
    const named = fields.filter((field) => field.value).map((field) => [field.name, label(field)]);
    try { history.replaceState(null, "", `#${new URLSearchParams(named)}`); } catch { /* no address to change */ }
  }
  const label = (field) => (field === words ? field.value : field.selectedOptions[0].textContent);
  function read() {
    const given = new URLSearchParams(location.hash.slice(1));
    for (const field of fields) {
      const value = given.get(field.name);
      if (value === null) continue;
      const option = field === words ? null : [...field.options].find((each) => each.textContent === value);
      field.value = field === words ? value : option ? option.value : "";
    }
  }
  function sort(at) {
    const down = heads[at].getAttribute("aria-sort") === "ascending", sign = down ? -1 : 1;
    heads.forEach((head) => head && head.removeAttribute("aria-sort"));
    heads[at].setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...rows.sort((a, b) => sign * (place(a, selects[at]) - place(b, selects[at]))));
    choose();
  }
  heads.forEach((head, at) => {
    if (!head) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.title = `sort by ${head.textContent}`;
    button.addEventListener("click", () => sort(at));
    head.replaceChildren(button);
  });
  fields.forEach((field) => field.addEventListener("input", () => { choose(); write(); }));
  whole.addEventListener("click", () => { all = true; choose(); });
  addEventListener("hashchange", () => { read(); choose(); });
  root.querySelector(".pw-choosers").hidden = false;
  read();
  choose();
}
