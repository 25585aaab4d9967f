(data, draw) => {
  const root = document.getElementById(data.id), picture = root.querySelector(".pw-picture");
  const inputs = [...root.querySelectorAll("input")], outputs = [...root.querySelectorAll("output")];
  function show() {
    const places = inputs.map((input) => Number(input.value));
    places.forEach((at, i) => {
      outputs[i].textContent = data.values[i][at];
      inputs[i].setAttribute("aria-valuetext", data.values[i][at]);
    });
    draw(picture, data, places);
  }
  for (const input of inputs) input.addEventListener("input", show);
  root.querySelector("[hidden]").hidden = false;
  show();
}
