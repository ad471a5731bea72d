// Draws an evaluation: figures, confused pairs, the matrix, mistakes, classes, scores.
const MOST_IN_MATRIX = 120;
const IN_LARGE_MATRIX = 60;
const MISTAKES_AT_FIRST = 14;
const CLASSES_AT_FIRST = 15;
const FULL_WIDTH = 1080; // of a matrix on a wide screen, in pixels

const counted = (share) => `${number.format(share.count)} of ${number.format(share.of)}`;

function drawHead() {
  $("among").textContent = `${plural(data.accuracy.of, "photo")} of ${plural(data.per_class.length, "class", "classes")}, among ${plural(data.classes, "class", "classes")} to choose from`;
  const scores = data.calibration;
  const { unknowns } = data;
  const figures = [
    figure("Accuracy", finePercent.format(data.accuracy.share), `${counted(data.accuracy)} right; 95 % interval ${interval(data.accuracy)}`),
    figure("Among the best five", finePercent.format(data.among_best.share), "the class of the photo"),
    figure("Mean score", finePercent.format(scores.mean_score), `where ${finePercent.format(scores.accuracy)} are right`),
  ];
  if (unknowns.known) figures.push(figure("Called unknown", finePercent.format(unknowns.known.share), "of these photos"));
  if (unknowns.unknown_photos) figures.push(unknownImages(unknowns));
  const gone = [[data.left_out.learned, "that the classes have learned from"], [data.left_out.repeated, "that came twice"], [data.left_out.unreadable, "that cannot be read"]];
  const said = gone.filter(([count]) => count).map(([count, why]) => `${number.format(count)} ${why}`);
  if (said.length) figures.push(figure("Left out", number.format(data.left_out.learned + data.left_out.repeated + data.left_out.unreadable), `photos: ${said.join(", ")}`));
  $("figures").append(...figures);
}

function unknownImages(unknowns) {
  const classes = plural(unknowns.unknown_classes.length, "class", "classes");
  const of = `${plural(unknowns.unknown_photos, "photo")} of ${classes} that are not there`;
  if (unknowns.unknown_images) return figure("Other photos called unknown", finePercent.format(unknowns.unknown_images.share), `of ${of}`);
  return figure("Other photos", number.format(unknowns.unknown_photos), `of ${classes} that are not there; no threshold says if they are unknown`);
}

function drawPairs() {
  $("pairs-section").hidden = data.confused.length === 0;
  for (const pair of data.confused) {
    const said = element("p", "", [isolated(pair.label), " called ", element("strong", "", isolated(pair.answer)), " "]);
    said.append(element("span", "count", `${number.format(pair.count)} of ${number.format(pair.of)}`));
    const strip = element("div", "strip", pair.images.map((place) => shown(data.photos[place])));
    $("pairs").append(element("li", "", [said, strip]));
  }
  const rest = data.mistakes - data.confused.reduce((sum, pair) => sum + pair.count, 0);
  $("more-pairs").textContent = rest ? `and ${plural(rest, "other mistake")}` : "";
}

/** The picture of a photo, or its name where there is none. */
function shown(photo) {
  const text = `${photo.image}: ${photo.label}, called ${photo.answer}`;
  if (photo.picture === null) return element("span", "blank", isolated(photo.image.split("/").pop()));
  const made = picture(photo.picture, text);
  made.title = text;
  return made;
}

function card(photo) {
  const caption = element("figcaption", "", element("span", "", [isolated(photo.label), " called ", element("strong", "", isolated(photo.answer)), ` ${percent.format(photo.score)}`]));
  if (photo.label_score !== null) caption.append(element("span", "file", `its own class: ${percent.format(photo.label_score)}`));
  caption.append(element("span", "file", isolated(photo.image)));
  return element("li", "", element("figure", "", [shown(photo), caption]));
}

function drawMatrix() {
  const order = matrixClasses();
  const column = new Map(order.map((at, place) => [data.names[at], place]));
  const cells = new Map();
  for (const [row, answer, count] of data.cells) {
    const at = column.get(row);
    if (at === undefined) continue;
    const to = column.get(answer) ?? order.length; // the last column has all answers that are none of these classes
    const key = `${at} ${to}`;
    cells.set(key, { at, to, count: (cells.get(key)?.count ?? 0) + count });
  }
  const wide = [...cells.values()].some(({ to }) => to === order.length);
  const heads = order.map((at) => data.names[at]);
  if (wide) heads.push("other answers");
  const numbered = order.length <= 30; // else cells are too small for their counts
  const font = numbered ? 13 : 9.5;
  const turn = numbered ? -60 : -90;
  const label = (text) => (text.length > 26 ? `${text.slice(0, 25)}…` : text);
  const left = Math.ceil(Math.max(...heads.map((text) => label(text).length)) * font * 0.58) + 10;
  const most = order.length <= 12 ? 40 : numbered ? 26 : 16;
  const size = Math.max(10, Math.min(most, Math.floor((FULL_WIDTH - left) / heads.length)));
  const top = Math.ceil(left * (numbered ? 0.87 : 1)) + 6;
  const width = left + heads.length * size + (numbered ? Math.ceil(left * 0.5) : 4);
  const height = top + order.length * size + 2;
  const svg = drawn("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "Confusion matrix; the list of pairs above says the same in words", "font-size": font });
  svg.append(drawn("rect", { x: left, y: top, width: heads.length * size, height: order.length * size, class: "grid-line" }));
  heads.forEach((text, place) => {
    const x = left + (place + 0.5) * size + font * 0.35;
    svg.append(drawn("text", { x, y: top - 6, transform: `rotate(${turn} ${x} ${top - 6})` }, label(text)));
  });
  order.forEach((at, place) => svg.append(drawn("text", { x: left - 6, y: top + (place + 0.5) * size + font * 0.36, "text-anchor": "end" }, label(data.names[at]))));
  const totals = order.map((_, place) => [...cells.values()].reduce((sum, cell) => sum + (cell.at === place ? cell.count : 0), 0));
  for (const cell of cells.values()) {
    const share = cell.count / totals[cell.at];
    const right = cell.at === cell.to;
    const x = left + cell.to * size;
    const y = top + cell.at * size;
    const box = drawn("rect", { x: x + 0.5, y: y + 0.5, width: size - 1, height: size - 1, class: right ? "right" : "wrong", "fill-opacity": (0.16 + 0.84 * share).toFixed(3) });
    const label_ = data.names[order[cell.at]];
    const answer = cell.to === order.length ? null : heads[cell.to];
    box.append(drawn("title", {}, said(label_, answer, cell.count, totals[cell.at])));
    box.addEventListener("click", () => choose(svg, box, label_, answer, cell.count, totals[cell.at]));
    svg.append(box);
    if (numbered) svg.append(drawn("text", { x: x + size / 2, y: y + size / 2 + font * 0.36, class: share > 0.55 ? "number strong" : "number" }, number.format(cell.count)));
  }
  $("matrix").append(svg);
  const some = order.length < data.names.length ? ` Of ${plural(data.names.length, "class", "classes")}, the ${order.length} with the lowest accuracy.` : "";
  $("matrix-note").textContent = `A row for each class, a column for each answer; blue is right, orange wrong.${some} Choose a cell to see its photos.`;
}

/** Numbers of the classes that the matrix shows: all, or of very many those that do worst. */
function matrixClasses() {
  const all = data.names.map((_, at) => at);
  if (all.length <= MOST_IN_MATRIX) return all;
  const worst = new Set(data.per_class.slice(0, IN_LARGE_MATRIX).map((one) => one.name));
  return all.filter((at) => worst.has(data.names[at]));
}

const said = (label, answer, count, total) => `${label} called ${answer ?? "something else"}: ${number.format(count)} of ${number.format(total)}`;

function choose(svg, box, label, answer, count, total) {
  for (const old of svg.querySelectorAll(".chosen")) old.classList.remove("chosen");
  box.classList.add("chosen");
  const of = data.photos.filter((photo) => photo.label === label && (answer === null ? !data.names.includes(photo.answer) : photo.answer === answer));
  const mistakes = label !== answer;
  $("cell").textContent = said(label, answer, count, total) + (mistakes && of.length < count ? `; ${of.length ? `${of.length} of them` : "none of them"} in this page` : "");
  $("cell-photos").replaceChildren(...of.map(card));
}

function drawWorst() {
  const photos = data.worst.map((place) => data.photos[place]);
  $("worst-section").hidden = photos.length === 0;
  $("worst-note").textContent = `The wrong answers with the highest scores: look first if the photo lies in the wrong folder. ${photos.length < data.mistakes ? `${number.format(photos.length)} of ${plural(data.mistakes, "mistake")}.` : ""}`;
  const labels = [...new Set(photos.map((photo) => photo.label))].sort();
  const option = (value, text) => Object.assign(element("option", "", text), { value });
  $("filter").append(option("", "all classes"), ...labels.map((label, at) => option(String(at + 1), label)));
  const draw = (most) => {
    const label = labels[Number($("filter").value) - 1];
    const chosen = photos.filter((photo) => label === undefined || photo.label === label);
    $("worst").replaceChildren(...chosen.slice(0, most).map(card));
    $("all-worst").hidden = chosen.length <= most;
    $("all-worst").textContent = `Show the other ${number.format(Math.max(0, chosen.length - most))}`;
  };
  $("filter").addEventListener("change", () => draw(MISTAKES_AT_FIRST));
  $("all-worst").addEventListener("click", () => draw(photos.length));
  draw(MISTAKES_AT_FIRST);
}

function drawClasses() {
  const heads = ["class", "accuracy", "right", "", "answered", "most often called"];
  const head = element("tr", "", heads.map((text) => Object.assign(element("th", "", text), { scope: "col" })));
  const body = element("tbody");
  $("classes").append(element("thead", "", head), body);
  const draw = (count) => body.replaceChildren(...data.per_class.slice(0, count).map(classRow));
  draw(CLASSES_AT_FIRST);
  const rest = data.per_class.length - CLASSES_AT_FIRST;
  $("all-classes").hidden = rest <= 0;
  $("all-classes").textContent = `Show the other ${number.format(Math.max(0, rest))}`;
  $("all-classes").addEventListener("click", () => {
    draw(data.per_class.length);
    $("all-classes").hidden = true;
  });
}

function classRow(one) {
  const { accuracy } = one;
  return element("tr", "", [
    Object.assign(element("th", "", isolated(one.name)), { scope: "row" }),
    element("td", "", percent.format(accuracy.share)),
    element("td", "", counted(accuracy)),
    bar(accuracy),
    element("td", "", number.format(one.answered)),
    element("td", "", one.taken_for === null ? "–" : isolated(one.taken_for)),
  ]);
}

function drawTrade() {
  const { unknowns } = data;
  const none = unknowns.unknown_photos === 0;
  $("trade").hidden = none;
  $("trade-rows").hidden = none;
  $("trade-note").textContent = none
    ? "Not measured: no photo shows something else. Evaluate again with further folders of photos that show none of the classes."
    : "A lower threshold finds more photos of other things, and calls more photos of the classes unknown. Upwards: other photos found.";
  if (none) return;
  const rows = unknowns.trade.map((one) => ({ ...one, name: `up to ${percent.format(one.false_alarms)}` }));
  if (unknowns.threshold !== null) rows.push({ ...unknowns, name: "now", now: true });
  const most = Math.min(1, Math.max(0.3, ...rows.map((one) => 1.2 * one.known.share)));
  const { svg, x, y } = plot("Other photos found by photos of the classes called unknown", "photos of the classes called unknown", most);
  const inside = data.curve.filter(([known]) => known <= most);
  svg.append(drawn("polyline", { points: inside.map(([known, others]) => `${x(known)},${y(others)}`).join(" "), class: "curve" }));
  for (const one of rows) {
    const dot = drawn("circle", { cx: x(one.known.share), cy: y(one.unknown_images.share), r: one.now ? 6 : 4, class: one.now ? "now" : "dot" });
    dot.append(drawn("title", {}, `threshold ${one.threshold.toFixed(3)}: ${finePercent.format(one.known.share)} of the photos of the classes called unknown, ${finePercent.format(one.unknown_images.share)} of the others found`));
    svg.append(dot);
    if (one.now) svg.append(drawn("text", { x: x(one.known.share) + 10, y: y(one.unknown_images.share) + 16, class: "mark" }, "now"));
  }
  $("trade").append(svg);
  const head = ["false alarms", "threshold", "called unknown", "95 % interval", "others found", "95 % interval"].map((text) => Object.assign(element("th", "", text), { scope: "col" }));
  rows.sort((one, other) => other.threshold - one.threshold);
  const share = (of) => [element("td", "", finePercent.format(of.share)), element("td", "", interval(of))];
  const cells = (one) => [Object.assign(element("th", "", one.name), { scope: "row" }), element("td", "", one.threshold.toFixed(3)), ...share(one.known), ...share(one.unknown_images)];
  $("thresholds").append(element("thead", "", element("tr", "", head)), element("tbody", "", rows.map((one) => element("tr", one.now ? "now" : "", cells(one)))));
}

function drawScores() {
  const scores = data.calibration;
  const beyond = Math.max(0, scores.error - scores.by_chance);
  const off = scores.mean_score - scores.accuracy;
  const verdict = beyond < 0.05 ? "Scores say about how often answers are right." : off > 0 ? "Scores are too sure." : "Scores are too modest.";
  $("scores-note").textContent = `${verdict} The mean best score is ${finePercent.format(scores.mean_score)}, and ${finePercent.format(scores.accuracy)} of the answers are right. Calibration error ${finePercent.format(scores.error)}, of which chance explains ${finePercent.format(Math.min(scores.error, scores.by_chance))} with so many photos. Below: the share of right answers at each score; on the dashed line both agree.`;
  const { svg, x, y } = plot("Accuracy by score", "best score; the stronger the colour, the more photos");
  const most = Math.max(...scores.bins.map((bin) => bin.count));
  for (const bin of scores.bins) {
    const bar = drawn("rect", { x: x(bin.low) + 1, y: y(bin.accuracy), width: x(bin.high) - x(bin.low) - 2, height: y(0) - y(bin.accuracy), class: "bin", "fill-opacity": (0.25 + 0.75 * Math.sqrt(bin.count / most)).toFixed(3) });
    bar.append(drawn("title", {}, `${plural(bin.count, "photo")}: mean score ${finePercent.format(bin.score)}, ${finePercent.format(bin.accuracy)} right`));
    svg.append(bar);
  }
  svg.append(drawn("line", { x1: x(0), y1: y(0), x2: x(1), y2: y(1), class: "ideal" }));
  $("reliability").append(svg);
}

drawHead();
drawPairs();
drawMatrix();
drawWorst();
drawClasses();
drawTrade();
$("curves-section").hidden = !data.photo_curve;
if (data.photo_curve) drawCurves("curves", [{ name: data.title, curve: data.photo_curve }]);
drawScores();
