// What the pages with figures share: plots, bars, lines.
const SVG = "http://www.w3.org/2000/svg";
const SERIES = 6; // colours of lines

const interval = (share) => `${finePercent.format(share.low)} to ${finePercent.format(share.high)}`;

function drawn(tag, attributes, content = "") {
  const made = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(content);
  return made;
}

function figure(title, value, note) {
  return element("div", "figure", [element("h2", "", title), element("p", "value", value), element("p", "note", note)]);
}

/** A square plot of shares, from 0 to 1; values across reach `most`, and `written` writes their ticks, if any. */
function plot(name, across, most = 1, written = percent.format) {
  const [left, top, size] = [46, 10, 300];
  const x = (value) => left + (value / most) * size;
  const y = (value) => top + (1 - value) * size;
  const svg = drawn("svg", { viewBox: `0 0 ${left + size + 22} ${top + size + 46}`, role: "img", "aria-label": name });
  for (const tick of [0, 0.5, 1]) {
    svg.append(drawn("line", { x1: x(0), x2: x(most), y1: y(tick), y2: y(tick), class: "axis" }));
    svg.append(drawn("text", { x: left - 8, y: y(tick) + 4, "text-anchor": "end" }, percent.format(tick)));
    if (written) svg.append(drawn("text", { x: x(tick * most), y: y(0) + 18, "text-anchor": "middle" }, written(tick * most)));
  }
  svg.append(drawn("text", { x: x(most / 2), y: y(0) + 38, "text-anchor": "middle" }, across));
  return { svg, x, y };
}

/** A bar of a share, with its interval as a line. */
function bar(share) {
  const fill = element("div", "fill");
  fill.style.width = `${100 * share.share}%`;
  const span = element("div", "span");
  span.style.left = `${100 * share.low}%`;
  span.style.width = `${100 * (share.high - share.low)}%`;
  const made = element("td", "bar-cell", element("div", "track", [fill, span]));
  made.title = `95 % interval ${interval(share)}`;
  return made;
}

/** The colour of each line, by name; none for a single line. */
function legend(names) {
  const items = names.map((name, at) => element("li", "", [element("span", `swatch series${at % SERIES}`), isolated(name)]));
  return element("ul", "legend", names.length > 1 ? items : []);
}

/** Accuracy over photos of each class, by the logarithm, and the estimate for twice as many. */
function drawCurves(place, curves) {
  const most = Math.max(...curves.map(({ curve }) => (curve.twice ?? curve.points.at(-1)).photos));
  const across = (photos) => Math.log2(1 + photos);
  const { svg, x, y } = plot("Accuracy over photos of each class", "photos of each class; 0 is by name", across(most), null);
  const ticks = new Set(curves.flatMap(({ curve }) => [...curve.points, ...(curve.twice ? [curve.twice] : [])].map((point) => point.photos)));
  for (const tick of ticks) svg.append(drawn("text", { x: x(across(tick)), y: y(0) + 18, "text-anchor": "middle" }, number.format(tick)));
  curves.forEach(({ curve, name }, at) => {
    const line = (points, kind) => drawn("polyline", { points: points.map((one) => `${x(across(one.photos))},${y(one.accuracy.share)}`).join(" "), class: `curve series${at % SERIES} ${kind}` });
    svg.append(line(curve.points, ""));
    for (const point of curve.points) {
      const dot = drawn("circle", { cx: x(across(point.photos)), cy: y(point.accuracy.share), r: 3.5, class: `dot series${at % SERIES}` });
      dot.append(drawn("title", {}, `${name}, ${point.photos ? plural(point.photos, "photo") : "by name"}: ${finePercent.format(point.accuracy.share)} (${interval(point.accuracy)})`));
      svg.append(dot);
    }
    if (!curve.twice) return;
    const { photos, accuracy } = curve.twice;
    svg.append(line([curve.points.at(-1), curve.twice], "estimate"));
    const whisker = drawn("line", { x1: x(across(photos)), x2: x(across(photos)), y1: y(accuracy.low), y2: y(accuracy.high), class: "whisker" });
    whisker.append(drawn("title", {}, `${name}, ${plural(photos, "photo")}: about ${percent.format(accuracy.share)} (${interval(accuracy)})`));
    svg.append(whisker);
  });
  $(place).append(svg, legend(curves.map((one) => one.name)));
}
