// Search runs in a worker, which browsers refuse to pages opened as files; there a hidden frame does its work. The name
// of this file is what Material's plugin "offline" looks for before it adds a script from elsewhere.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    #waiting = [];

    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.onload = () => this.#start(frame.contentWindow, new URL(url, location.href));
      document.body.append(frame);
    }

    postMessage(data) {
      this.#waiting.push(data);
    }

    #start(inside, url) {
      inside.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }));
      const script = inside.document.createElement("script");
      script.src = url;
      script.onload = () => {
        this.postMessage = data => inside.dispatchEvent(new MessageEvent("message", { data }));
        this.#waiting.forEach(data => this.postMessage(data));
      };
      inside.document.head.append(script);
    }
  };
}
