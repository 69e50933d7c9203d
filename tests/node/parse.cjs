// An event stream on stdin, as npm's eventsource-parser reads it: events to stdout as JSON lines.
const { createParser } = require("eventsource-parser")

let lastId = ""
const parser = createParser({
  onEvent({ id, event, data }) {
    lastId = id ?? lastId // the parser gives the id of the block, browsers the last one seen
    console.log(JSON.stringify([event ?? "message", lastId, data]))
  },
  onError(error) {
    console.log(JSON.stringify(["refused by the parser", error.type, error.message]))
  },
})

const decoder = new TextDecoder()
process.stdin.on("data", (chunk) => parser.feed(decoder.decode(chunk, { stream: true })))
