// Follows an event stream with npm's eventsource: events, and what it says of errors, as JSON lines.
// Arguments: the URL, a token or "", and the names of the events to listen to.
const { EventSource } = require("eventsource")

const [url, token, ...kinds] = process.argv.slice(2)
const withToken = (address, init) =>
  fetch(address, {
    ...init,
    headers: token ? { ...init.headers, Authorization: `Bearer ${token}` } : init.headers,
  })
const source = new EventSource(url, { fetch: withToken })

const say = (...words) => console.log(JSON.stringify(words))
let lastId = ""
for (const kind of kinds) {
  source.addEventListener(kind, ({ type, lastEventId, data }) => {
    lastId = lastEventId || lastId // it forgets the id at a block without one; it resumes rightly
    say(type, lastId, data)
  })
}
source.onerror = ({ code }) => {
  say("error", String(code ?? ""), source.readyState === source.CLOSED ? "closed" : "connecting")
  if (source.readyState === source.CLOSED) process.exit(0)
}
