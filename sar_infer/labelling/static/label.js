// The page of sar-label. Its state is the server's: each action answers with all of it, so a reload loses nothing.
import { html, render, useEffect, useRef, useState } from "./preact.js";
import { asked } from "./ask.js";
import { Enough } from "./estimate.js";
import { Listed } from "./listed.js";
import { Naming, Tile, photoOf } from "./parts.js";

const labelsOf = (photos, name) => Object.fromEntries(photos.map((photo) => [photo.number, name]));

function Question({ question, names, act }) {
  const [left, setLeft] = useState([]); // numbers of the photos that are unticked
  const sheet = useRef();
  const field = useRef();
  useEffect(() => sheet.current.focus({ preventScroll: true }), []);
  const ticked = question.photos.filter((photo) => !left.includes(photo.number));
  const answer = (name) => ticked.length > 0 && act("answer", { labels: labelsOf(ticked, name) });
  const skip = () => act("skip", { photos: question.photos.map((photo) => photo.number) });
  const toggle = (number) => setLeft(left.includes(number) ? left.filter((one) => one !== number) : [...left, number]);
  useEffect(() => {
    const pressed = (event) => {
      if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input")) return;
      const proposal = question.proposals[Number(event.key) - 1];
      if (event.key === " " && event.target.matches("button")) return; // presses the button
      if (event.key === " ") skip();
      else if (event.key === "0") answer(null);
      else if (event.key === "z") act("undo", {});
      else if (/^[1-5]$/.test(event.key)) proposal && answer(proposal[0]);
      else if (event.key === "/" || /^\p{L}$/u.test(event.key)) {
        field.current.focus();
        if (event.key !== "/") return; // the letter goes into the field
      } else return;
      event.preventDefault();
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  });
  const group = question.photos.length > 1;
  const first = question.photos[0];
  return html`<section class="sheet ${group ? "group" : ""}" tabindex="-1" ref=${sheet} aria-label="Question">
    <h2>${group ? "What do these photos show? Untick the others." : "What does this photo show?"}</h2>
    ${group
      ? html`<ul class="grid">${question.photos.map((photo) => html`<li key=${photo.number}>
          <${Tile} photo=${photo} pressed=${!left.includes(photo.number)} act=${() => toggle(photo.number)} /></li>`)}</ul>`
      : html`<img class="large" src=${photoOf(first, "large")} alt=${first.name} />`}
    <div class="proposals">
      ${question.proposals.map(([name, share], place) => html`<button type="button" key=${name} onClick=${() => answer(name)}>
        <kbd>${place + 1}</kbd><span>${name}</span><span class="note">${Math.min(99, Math.round(share * 100))} %</span></button>`)}
    </div>
    <${Naming} names=${names} label="Name of the class" verb="Name" field=${field} act=${answer} />
    <div class="proposals">
      <button type="button" onClick=${() => answer(null)}><kbd>0</kbd><span>None of my classes</span></button>
      <button type="button" onClick=${skip}><kbd>Space</kbd><span>Skip</span></button>
      <button type="button" onClick=${() => act("undo", {})}><kbd>z</kbd><span>Undo</span></button>
    </div>
    <p class="note keys">Type to name a class, <kbd>/</kbd> to name one that begins with z, <kbd>Esc</kbd> to leave the field.</p>
  </section>`;
}

function Classes({ state, view, setView }) {
  const entries = Object.entries(state.classes).filter(([, count]) => count > 0);
  const item = (shown, text, count) => html`<li key=${text + shown.of}><button type="button" onClick=${() => setView(shown)}
    aria-current=${view?.of === shown.of && view?.name === shown.name}><span>${text}</span><span class="note">${count}</span></button></li>`;
  return html`<section class="sheet" aria-label="Classes">
    <h2>${entries.length === 1 ? "1 class" : `${entries.length} classes`}</h2>
    <ul class="classes">${entries.map(([name, count]) => item({ of: "class", name }, name, count))}</ul>
    <ul class="classes">${item({ of: "none" }, "None of my classes", "")}${item({ of: "open" }, "All that is open", "")}</ul>
  </section>`;
}

function Bank({ state, saved, act }) {
  return html`<section class="sheet" aria-label="Bank">
    <button type="button" class="primary" onClick=${() => act("save", {})}>Save the classifier</button>
    ${saved && html`<p class="note" role="note">Saved as ${saved}. Use it:</p><pre>${state.next.join("\n")}</pre>`}
  </section>`;
}

function Unreadable({ photos }) {
  if (!photos.length) return null;
  return html`<details class="sheet"><summary>${photos.length} ${photos.length === 1 ? "photo" : "photos"} cannot be read</summary>
    <ul class="note">${photos.map((one) => html`<li>${one.name}: ${one.reason}</li>`)}</ul></details>`;
}

function App() {
  const [state, setState] = useState(null);
  const [problem, setProblem] = useState("");
  const [saved, setSaved] = useState("");
  const [view, setView] = useState(null); // null: the questions
  const [known, setKnown] = useState([]); // names of the encoder, for completion
  const busy = useRef(false);
  const acted = useRef(0); // actions so far: what was read before an action is out of date
  const act = async (path, body) => {
    if (busy.current) return; // one answer at a time: a key that is held down is one
    busy.current = true;
    acted.current += 1;
    try {
      const next = await asked(path, body);
      setState(next);
      setProblem("");
      if (next.saved) setSaved(next.saved);
    } catch (error) {
      setProblem(error.message);
    } finally {
      busy.current = false;
    }
  };
  const look = async () => {
    const before = acted.current;
    try {
      const next = await asked("state");
      if (before === acted.current) setState(next);
    } catch (error) {
      setProblem(error.message);
    }
  };
  useEffect(() => {
    look();
    asked("names").then(setKnown, (error) => setProblem(error.message));
  }, []);
  const waiting = state && state.done < state.total;
  useEffect(() => {
    if (!waiting) return undefined;
    const timer = setInterval(look, state.question ? 3000 : 300);
    return () => clearInterval(timer);
  }, [waiting, !state?.question]);
  if (!state) return html`<main><p role=${problem ? "alert" : "status"}>${problem || "Opening the photos …"}</p></main>`;
  const { question, estimate } = state;
  const names = [...new Set([...Object.keys(state.classes), ...known])];
  const asks = question
    ? html`<${Question} key=${JSON.stringify(question.photos)} question=${question} names=${names} act=${act} />`
    : html`<section class="sheet"><p>${waiting ? "Looking at the photos …" : "Nothing is left to ask."}</p>
        <div class="proposals"><button type="button" onClick=${() => act("undo", {})}>Undo</button></div></section>`;
  return html`<header class="head"><h1>Name photos</h1></header>
    <main>
      ${problem && html`<p class="notice bad" role="alert">${problem}</p>`}
      <p class="note" role="status">${estimate.answers === 1 ? "1 answer" : `${estimate.answers} answers`}, each stored.
        ${waiting ? ` ${state.done} of ${state.total} photos are ready.` : ""}</p>
      ${waiting && html`<progress max=${state.total} value=${state.done} aria-label="Photos that are ready"></progress>`}
      <div class="columns">
        ${view
          ? html`<${Listed} key=${JSON.stringify(view)} view=${view} names=${names} answers=${estimate.answers}
              act=${(photos, name) => act("answer", { labels: labelsOf(photos, name) })} close=${() => setView(null)} />`
          : asks}
        <div class="side">
          <${Enough} state=${state} />
          <${Classes} state=${state} view=${view} setView=${setView} />
          <${Bank} state=${state} saved=${saved} act=${act} />
          <${Unreadable} photos=${state.unreadable} />
        </div>
      </div>
    </main>`;
}

render(html`<${App} />`, document.body);
