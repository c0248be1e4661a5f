(() => {
  const bar = document.getElementById("bar"), words = document.getElementById("words");
  const selects = [...bar.querySelectorAll("select")], cards = [...document.querySelectorAll("article")];
  const texts = cards.map((card) => card.textContent.toLowerCase());
  const tokens = cards.map((card) => new Set(JSON.parse(card.dataset.tokens)));
  const apply = () => {
    const asked = selects.map((select) => select.value).filter(Boolean);
    const said = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    cards.forEach((card, n) => {
      const fits = asked.every((token) => tokens[n].has(token)) && said.every((word) => texts[n].includes(word));
      card.hidden = !fits;
      shown += fits;
    });
    document.getElementById("shown").textContent = `${shown} of ${cards.length}`;
    document.getElementById("none").hidden = shown > 0;
    const state = new URLSearchParams(selects.map((s, n) => [n, s.value]).filter((pair) => pair[1]));
    history.replaceState(null, "", `#${state}`);
  };
  new URLSearchParams(location.hash.slice(1)).forEach((value, n) => {
    if (selects[n]) selects[n].value = value;
  });
  bar.addEventListener("input", apply);
  bar.addEventListener("submit", (event) => event.preventDefault());
  bar.addEventListener("reset", () => setTimeout(apply));
  apply();
})();
