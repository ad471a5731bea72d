// What this page has beside that of `sar-serve`: the bank to download, and a camera on computers too.

import { bankFile } from "./api.js";
import { $, button } from "./dom.js";

const download = button("", "Download the bank", "Download the bank file with the classes that were taught", async () => {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(await bankFile()), download: "taught.safetensors" });
  link.click();
  URL.revokeObjectURL(link.href);
});
download.id = "download";
download.hidden = true;
$("bank").append(download);
document.addEventListener("taught", ({ detail }) => { download.hidden = detail === 0; });

/** The first click shows what the camera sees, the second takes the photo. */
const video = Object.assign(document.createElement("video"), { muted: true, playsInline: true, hidden: true });
$("stage").append(video);
$("shoot").addEventListener("click", async (event) => {
  if (!navigator.mediaDevices || matchMedia("(pointer: coarse)").matches) return; // the system's own camera
  event.stopImmediatePropagation();
  if (video.hidden) {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } }).catch(() => null);
    if (stream === null) { $("status").textContent = "The camera cannot be used."; return; }
    video.srcObject = stream;
    video.hidden = false;
    await video.play();
    $("shoot").textContent = "Take it";
    return;
  }
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  video.srcObject.getTracks().forEach((track) => track.stop());
  video.hidden = true;
  $("shoot").textContent = "Take a photo";
  const files = new DataTransfer();
  files.items.add(new File([await canvas.convertToBlob()], "camera.png", { type: "image/png" }));
  $("camera").files = files.files;
  $("camera").dispatchEvent(new Event("change"));
}, { capture: true });
