// The photos of a class, of none, or that are open: select some, confirm them or move them.
import { html, useEffect, useState } from "./preact.js";
import { asked } from "./ask.js";
import { Naming, Tile } from "./parts.js";

const TITLES = { none: "None of my classes", open: "All that is open" };

export function Listed({ view, names, answers, act, close }) {
  const [order, setOrder] = useState(view.of === "open" ? "unsure" : "sure");
  const [count, setCount] = useState(1); // parts of the list that are shown
  const [listed, setListed] = useState({ total: 0, photos: [] });
  const [selected, setSelected] = useState([]);
  const [last, setLast] = useState(0); // where a range begins
  const [problem, setProblem] = useState("");
  useEffect(() => {
    let current = true;
    const read = async () => {
      const parts = [];
      for (let part = 0; part < count; part += 1) {
        const query = new URLSearchParams({ of: view.of, name: view.name ?? "", order, start: parts.length });
        const answer = await asked(`photos?${query}`);
        parts.push(...answer.photos);
        if (current) setListed({ total: answer.total, photos: parts });
      }
    };
    read().catch((error) => current && setProblem(error.message));
    return () => {
      current = false;
    };
  }, [order, count, answers]);
  const select = (place, event) => {
    const number = listed.photos[place].number;
    const range = listed.photos.slice(Math.min(last, place), Math.max(last, place) + 1).map((photo) => photo.number);
    if (event.shiftKey) setSelected([...new Set([...selected, ...range])]);
    else setSelected(selected.includes(number) ? selected.filter((one) => one !== number) : [...selected, number]);
    setLast(place);
  };
  const answer = async (name) => {
    await act(listed.photos.filter((photo) => selected.includes(photo.number)), name);
    setSelected([]);
  };
  const share = (photo) => `${photo.answered ? "✓" : `${Math.min(99, Math.round(photo.probability * 100))} %`} ${photo.class ?? ""}`;
  return html`<section class="sheet" aria-label="Photos">
    <div class="line"><button type="button" onClick=${close}>Back to the questions</button>
      <h2>${TITLES[view.of] ?? view.name}: ${listed.total} photos</h2></div>
    ${problem && html`<p class="notice bad" role="alert">${problem}</p>`}
    <div class="proposals">
      <button type="button" onClick=${() => setOrder(order === "sure" ? "unsure" : "sure")}>
        ${order === "sure" ? "Least sure first" : "Surest first"}</button>
      <button type="button" onClick=${() => setSelected(listed.photos.map((photo) => photo.number))}>Select all shown</button>
      <button type="button" disabled=${!selected.length} onClick=${() => setSelected([])}>Select none</button>
    </div>
    <ul class="grid">${listed.photos.map((photo, place) => html`<li key=${photo.number}>
      <${Tile} photo=${photo} pressed=${selected.includes(photo.number)} act=${(event) => select(place, event)}
        caption=${share(photo)} /></li>`)}</ul>
    ${listed.photos.length < listed.total && html`<button type="button" onClick=${() => setCount(count + 1)}>More</button>`}
    ${selected.length > 0 && html`<div class="proposals">
        ${view.of === "class" && html`<button type="button" class="primary" onClick=${() => answer(view.name)}>
          <span>${selected.length} are ${view.name}</span></button>`}
        <button type="button" onClick=${() => answer(null)}>None of my classes</button></div>
      <${Naming} names=${names} label="Another class" verb="Move" act=${answer} />`}
    <p class="note keys">Shift and a click, or Shift and Enter, select a range.</p>
  </section>`;
}
