(picture, { frames }, places) => {
  picture.innerHTML = places.reduce((inner, at) => inner[at], frames);
}
