// Draws a comparison of bundles: the verdict, a table, accuracy over time and over photos, photos that only one gets right.
const points = (share) => `${share > 0 ? "+" : ""}${(100 * share).toFixed(1)}`;

/** The accuracy with all photos. */
const accuracy = (one) => one.curve.points.at(-1).accuracy;

/** A table with a row for each bundle; `cells` returns a bundle's cells, which are text or elements. */
function table(place, heads, cells) {
  const row = (one) => [Object.assign(element("th", "", isolated(one.name)), { scope: "row" }), ...cells(one).map((cell) => (cell instanceof Element ? cell : element("td", "", cell)))];
  const head = ["bundle", ...heads].map((text) => Object.assign(element("th", "", text), { scope: "col" }));
  $(place).append(element("thead", "", element("tr", "", head)), element("tbody", "", data.bundles.map((one) => element("tr", "", row(one)))));
}

function drawBundles() {
  const numbers = [...new Set(data.bundles.flatMap((one) => one.curve.points.slice(0, -1).map((point) => point.photos)))].sort((a, b) => a - b);
  const several = data.bundles[0].several;
  if (several) $("several").textContent = `The last column is the mean average precision on ${plural(several.photos, "other photo")} of several things.`;
  const of = (n) => (n ? plural(n, "photo") : "by name");
  const to = (difference) => (difference === null ? "–" : `${points(difference.share)} (${points(difference.low)} to ${points(difference.high)})`);
  table("bundles", [of(data.bundles[0].curve.points.at(-1).photos), "", "to the best", ...numbers.map(of), "unknown", ...(several ? ["several"] : [])], (one) => {
    const at = new Map(one.curve.points.slice(0, -1).map((point) => [point.photos, percent.format(point.accuracy.share)]));
    return [finePercent.format(accuracy(one).share), bar(accuracy(one)), to(one.difference), ...numbers.map((n) => at.get(n) ?? "–"), one.curve.auroc?.toFixed(3) ?? "–", ...(one.several ? [percent.format(one.several.mean_average_precision)] : [])];
  });
  table("costs", ["ms a photo", "in batches", "MiB memory", "MiB disk", "licence"], ({ cost, licence }) => [
    cost.one_ms.toFixed(1), cost.batch_ms.toFixed(1), cost.memory_mib?.toFixed(0) ?? "–", cost.disk_mib.toFixed(0), licence,
  ]);
}

function drawSpeed() {
  const most = 1.15 * Math.max(...data.bundles.map((one) => one.cost.batch_ms));
  const { svg, x, y } = plot("Accuracy over milliseconds a photo", "ms a photo", most, (value) => value.toFixed(0));
  data.bundles.forEach((one, at) => {
    const { share, low, high } = accuracy(one);
    const line = drawn("line", { x1: x(one.cost.batch_ms), x2: x(one.cost.batch_ms), y1: y(low), y2: y(high), class: "whisker" });
    const dot = drawn("circle", { cx: x(one.cost.batch_ms), cy: y(share), r: 5, class: `dot series${at % SERIES}` });
    dot.append(drawn("title", {}, `${one.name}: ${finePercent.format(share)}, ${one.cost.batch_ms.toFixed(1)} ms`));
    svg.append(line, dot);
  });
  $("speed").append(svg, legend(data.bundles.map((one) => one.name)));
}

function drawDifferences() {
  const pairs = data.sides.filter((pair) => pair.best.count || pair.other.count);
  $("differences").hidden = pairs.length === 0;
  for (const pair of pairs) {
    const side = (of) => element("div", "", [
      element("h3", "", [`Only `, isolated(of.name), ` gets right: ${plural(of.count, "photo")}`]),
      element("ul", "grid", of.photos.map((photo) => element("li", "", element("figure", "", [shown(photo), element("figcaption", "", [element("span", "", isolated(photo.label)), element("span", "file", isolated(photo.image))])])))),
    ]);
    $("sides").append(element("div", "sides", [side(pair.best), side(pair.other)]));
  }
}

/** The picture of a photo, or its name where there is none. */
function shown(photo) {
  if (photo.picture === null) return element("span", "blank", isolated(photo.image.split("/").pop()));
  return picture(photo.picture, `${photo.image}: ${photo.label}`);
}
$("among").textContent = `${plural(data.photos, "photo")} of ${plural(data.classes, "class", "classes")}, cross-validated`;
$("verdict").append(...data.verdict.map((line) => element("li", "", element("p", "", line))));
drawBundles();
drawSpeed();
drawCurves("curves", data.bundles);
drawDifferences();
