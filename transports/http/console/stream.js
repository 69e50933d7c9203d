// One event stream over many connections: reads by fetch, resumes by id, notices silence.

const BACKOFF_MS = 500;
const BACKOFF_MS_MAX = 30_000;
const SILENCE = 2.5;  // heartbeats without a byte after which a connection counts as dead

/** Splits bytes into events as WHATWG HTML §9.2 says. Calls `emit(kind, data, id)`. */
export class Parser {
  constructor(emit) {
    this.emit = emit;
    this.lastId = "";
    this.retryMs = null;
    this.rest = "";
    this.decoder = new TextDecoder();
    this.kind = "";
    this.data = [];
  }

  feed(bytes) {
    this.rest += this.decoder.decode(bytes, { stream: true });
    const lines = this.rest.split("\n");
    this.rest = lines.pop();
    for (const line of lines) this.line(line);
  }

  line(line) {
    if (line === "") {
      if (this.data.length) this.emit(this.kind, this.data.join("\n"), this.lastId);
      this.kind = "";
      this.data = [];
      return;
    }
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") this.kind = value;
    else if (name === "data") this.data.push(value);
    else if (name === "id" && !value.includes("\0")) this.lastId = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.retryMs = Number(value);
  }
}

/**
 * Follows `path` until it is over or `close` is called.
 * `on.frame(kind, data, id)` gets each frame, `on.state(word, seconds)` what the connection does,
 * `on.refused(status, detail)` a refusal for good.
 */
export class Stream {
  constructor(path, on) {
    this.path = path;
    this.on = on;
    this.lastId = "";
    this.heartbeatS = 15;
    this.failures = 0;
    this.retryMs = 1000;
    this.over = false;
    this.abort = new AbortController();
    this.run();
  }

  close() {
    this.over = true;
    this.abort.abort();
    clearTimeout(this.watchdog);
  }

  async run() {
    while (!this.over) {
      this.on.state("connecting");
      try {
        await this.connect();
      } catch (error) {
        if (this.over) return;
        console.debug("stream lost:", error);
      }
      clearTimeout(this.watchdog);
      if (this.over) return;
      const longest = Math.min(BACKOFF_MS_MAX, BACKOFF_MS * 2 ** Math.min(this.failures, 16));
      const waitMs = this.failures ? Math.random() * longest : this.retryMs;
      this.failures += 1;
      this.on.state("waiting", Math.ceil(waitMs / 1000));
      await new Promise((done) => setTimeout(done, waitMs));
    }
  }

  async connect() {
    this.abort = new AbortController();
    const headers = { Accept: "text/event-stream" };
    if (this.lastId) headers["Last-Event-ID"] = this.lastId;
    this.alive();
    const response = await fetch(this.path, {
      headers, signal: this.abort.signal, cache: "no-store", credentials: "same-origin",
    });
    if (response.status === 204) {
      this.over = true;
      return this.on.state("ended");
    }
    if (!response.ok) return this.refuse(response);
    const parser = new Parser((kind, data, id) => this.take(kind, JSON.parse(data), id));
    parser.lastId = this.lastId;
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done || this.over) return;
      this.alive();
      parser.feed(value);
      this.lastId = parser.lastId;
      if (parser.retryMs !== null) this.retryMs = parser.retryMs;
    }
  }

  take(kind, data, id) {
    this.failures = 0;
    if (kind === "hello") {
      this.heartbeatS = data.heartbeatS;
      this.on.state("live");
    }
    if (kind === "end") {
      this.retryMs = data.retryMs;
      if (data.reason === "terminal") {
        this.over = true;
        this.on.state("ended");
      }
    }
    this.on.frame(kind, data, id);
  }

  async refuse(response) {
    const problem = await response.json().catch(() => ({}));
    const passes = response.status >= 500 || response.status === 429;
    if (passes) throw new Error(problem.detail ?? response.statusText);
    this.over = true;
    this.on.refused(response.status, problem.detail ?? response.statusText);
  }

  /** Something was received: the next silence is measured from here. */
  alive() {
    clearTimeout(this.watchdog);
    this.watchdog = setTimeout(() => this.abort.abort(), SILENCE * this.heartbeatS * 1000);
  }
}
