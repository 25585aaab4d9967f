(id) => {
  const root = document.getElementById(id), body = root.querySelector("tbody"), rows = [...body.rows];
  const said = root.querySelector("[role=status]"), selects = [...root.querySelectorAll("select")];
  const heads = selects.map((select) => root.querySelector(`th[data-key="${select.dataset.key}"]`));
  const place = (row, select) => row.dataset[select.dataset.key];
  function choose() {
    for (const row of rows) row.hidden = selects.some((select) => select.value && select.value !== place(row, select));
    said.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  }
  function sort(at) {
    const down = heads[at].getAttribute("aria-sort") === "ascending", sign = down ? -1 : 1;
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[at].setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...rows.toSorted((a, b) => sign * (place(a, selects[at]) - place(b, selects[at]))));
  }
  heads.forEach((head, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.title = `sort by ${head.textContent}`;
    button.addEventListener("click", () => sort(at));
    head.replaceChildren(button);
  });
  selects.forEach((select) => select.addEventListener("change", choose));
  root.querySelector(".pw-choosers").hidden = false;
  choose();
}
