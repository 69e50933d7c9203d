// Follows an event stream with event-source-polyfill, which comes back with its position in the query.
// Arguments: the URL, a token, and the names of the events to listen to.
const { EventSourcePolyfill } = require("event-source-polyfill")

const [url, token, ...kinds] = process.argv.slice(2)
const source = new EventSourcePolyfill(url, { headers: { Authorization: `Bearer ${token}` } })

const say = (...words) => console.log(JSON.stringify(words))
for (const kind of kinds) {
  source.addEventListener(kind, ({ type, lastEventId, data }) => say(type, lastEventId, data))
}
source.onerror = ({ status }) => {
  say("error", String(status ?? ""), source.readyState === 2 ? "closed" : "connecting")
}
