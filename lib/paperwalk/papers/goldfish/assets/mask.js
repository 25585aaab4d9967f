(picture, { values, tokens, masks }, [k, h]) => {
  const mask = masks[k][h], [text, share] = picture.children;
  text.replaceChildren(...tokens.map((token, i) => {
    if (mask[i] === "1") return token;
    const dropped = document.createElement("s");
    dropped.textContent = token;
    return dropped;
  }));
  const n = mask.split("0").length - 1, percent = (100 * n / mask.length).toFixed(1);
  share.textContent = `${values[0][k]}, ${values[1][h]}: ${n} of ${mask.length} targets dropped (${percent} %)`;
}
