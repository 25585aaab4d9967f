({ name, events }) => {
  const last = events.length;
  const controls = document.querySelector(`.${name} > [hidden]`), root = controls.parentElement;
  const button = root.querySelector("button"), slider = root.querySelector("input");
  const rects = root.querySelectorAll(".pw-nodes rect"), costs = root.querySelectorAll(".pw-costs text");
  const now = root.querySelector(".pw-now"), path = root.querySelector(".pw-path");
  const [tokens, counts] = root.querySelectorAll("p > *");
  const cellOf = ([, x, y]) => `${x} ${y}`, cells = [...new Set(events.map(cellOf))];
  let timer = 0;
  function show() {
    const t = +slider.value, past = events.slice(0, t), present = past.at(-1);
    const states = new Map(past.map(event => [cellOf(event), event]));
    cells.forEach((cell, i) => {
      const [kind = "", , , g, h] = states.get(cell) ?? [];
      rects[i].setAttribute("class", kind);
      costs[i].firstChild.data = kind && g + h;
      costs[i].lastChild.textContent = kind && `${g}+${h}`;
    });
    now.toggleAttribute("hidden", !t);
    path.toggleAttribute("hidden", t < last);
    tokens.textContent = "";
    if (t) {
      const [kind, x, y, g, h] = present, rect = rects[cells.indexOf(cellOf(present))];
      tokens.textContent = `${kind} ${x} ${y} c${g} c${h}`;
      for (const side of ["x", "y"]) now.setAttribute(side, rect.getAttribute(side) - 1);
    }
    const created = past.filter(([kind]) => kind === "create").length;
    counts.textContent = `step ${t} of ${last}: ${created} created, ${t - created} closed`;
    slider.setAttribute("aria-valuetext", `${counts.textContent}. ${tokens.textContent}`);
  }
  function play(on) {
    clearInterval(timer);
    timer = on ? setInterval(() => move(+slider.value + 1), Math.min(400, 20000 / last)) : 0;
    button.textContent = on ? "Pause" : "Play";
  }
  function move(t) {
    slider.value = t;
    if (t >= last) play(false);
    show();
  }
  button.addEventListener("click", () => {
    play(!timer);
    if (timer && +slider.value === last) move(0);
  });
  slider.addEventListener("input", () => {
    play(false);
    show();
  });
  controls.hidden = false;
  show();
}
