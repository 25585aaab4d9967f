(id) => {
  for (const field of document.getElementById(id).querySelectorAll("fieldset")) {
    const said = field.querySelector("[role=status]"), answer = field.querySelector("details");
    const button = field.querySelector("button");
    button.addEventListener("click", () => {
      const chosen = field.querySelector("input:checked");
      if (!chosen) said.textContent = "Choose an answer first.";
      else if (chosen.value === button.value) said.textContent = `✔ Right. ${answer.lastElementChild.textContent}`;
      else said.textContent = "✘ Not that one. Try again.";
    });
    field.addEventListener("change", () => said.textContent = "");
    button.hidden = false;
    answer.hidden = true;
  }
}
