// Parts that the questions and the lists share. Names of classes and files only ever become text.
import { html, useState } from "./preact.js";

export const photoOf = (photo, side) => `photos/${photo.number}?side=${side}`;

export function Tile({ photo, pressed, act, caption }) {
  return html`<button type="button" class="tile" aria-pressed=${pressed} onClick=${act} title=${photo.name}>
      <img src=${photoOf(photo, "small")} alt=${photo.name} loading="lazy" /></button>
    ${caption && html`<span class="caption">${caption}</span>`}`;
}

/** A field with completion; an empty name does nothing. */
export function Naming({ names, label, verb, field, act }) {
  const [name, setName] = useState("");
  const named = (event) => {
    event.preventDefault();
    if (name.trim()) act(name.trim());
  };
  const left = (event) => event.key === "Escape" && event.target.blur();
  return html`<form class="line" onSubmit=${named}>
    <input ref=${field} value=${name} onInput=${(event) => setName(event.target.value)} onKeyDown=${left}
      list="names" aria-label=${label} placeholder=${label} autocomplete="off" spellcheck="false" />
    <datalist id="names">${(name ? names : []).map((one) => html`<option key=${one} value=${one} />`)}</datalist>
    <button type="submit">${verb}</button>
  </form>`;
}
