// Draws an evaluation of several classes in one photo: figures, classes, and photos whose answer is not their labels.
/** A figure of a share, which may be absent. */
function shareFigure(title, share, note) {
  const counted = share ? `${number.format(share.count)} of ${number.format(share.of)}; 95 % interval ${interval(share)}; ` : "";
  return figure(title, share ? finePercent.format(share.share) : "–", `${counted}${note}`);
}

function classRow(one) {
  const shares = [one.average_precision, one.precision?.share, one.recall?.share].map((share) => (share === undefined ? "–" : percent.format(share)));
  const cells = [...shares, number.format(one.recall.of)].map((text) => element("td", "", text));
  return element("tr", "", [Object.assign(element("th", "", isolated(one.name)), { scope: "row" }), ...cells]);
}

function card(photo) {
  const answers = new Set(photo.answers.map(({ label }) => label));
  const missed = photo.labels.filter((label) => !answers.has(label));
  const wrong = photo.answers.filter(({ label }) => !photo.labels.includes(label));
  const caption = element("figcaption", "", element("span", "", photo.labels.length ? photo.labels.flatMap((label, at) => [at ? ", " : "", isolated(label)]) : "no class"));
  if (missed.length) caption.append(element("span", "", ["missed: ", element("strong", "", missed.join(", "))]));
  if (wrong.length) caption.append(element("span", "", ["wrong: ", element("strong", "", wrong.map(({ label, score }) => `${label} ${percent.format(score)}`).join(", "))]));
  caption.append(element("span", "file", isolated(photo.image)));
  const shown = photo.picture === null ? element("span", "blank", isolated(photo.image.split("/").pop())) : picture(photo.picture, photo.image);
  return element("li", "", element("figure", "", [shown, caption]));
}
$("among").textContent = `${plural(data.photos, "photo")}, ${plural(data.classes, "class", "classes")} to choose from`;
$("figures").append(
  shareFigure("Precision", data.precision, "classes in the answers are labels"),
  shareFigure("Recall", data.recall, "labels are in the answers"),
  figure("Mean average precision", finePercent.format(data.mean_average_precision), "over the classes that are labels"),
  shareFigure("Empty answers", data.empty, "photos without a label"),
  shareFigure("Empty answers", data.missed, "photos with a label"),
);
const heads = ["class", "average precision", "precision", "recall", "photos"].map((text) => Object.assign(element("th", "", text), { scope: "col" }));
$("classes").append(element("thead", "", element("tr", "", heads)), element("tbody", "", data.per_class.map(classRow)));
$("others").textContent = data.other_labels.length ? `Labels that are no class: ${data.other_labels.join(", ")}` : "";
$("mistakes-section").hidden = data.mistakes === 0;
$("mistakes-note").textContent = `${number.format(data.shown.length)} of ${plural(data.mistakes, "photo")} whose answer is not exactly their labels.`;
$("mistakes").append(...data.shown.map(card));
