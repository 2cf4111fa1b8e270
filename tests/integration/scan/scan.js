// Runs the gateway's modules over many inputs at once, for tests: the request's first line lists what to do.
import retryPolicy from 'retry_policy.js';
import contentParts from 'content_parts.js';
import lostRequests from 'lost_requests.js';
import autoRouting from 'auto_routing.js';
import sessionAffinity from 'session_affinity.js';
import mediaUrls from 'media_urls.js';
import bodyScanner from 'body_scanner.js';
import outputConstraints from 'output_constraints.js';

function facts(bytes) {
    try {
        return bodyScanner.read(bytes);
    } catch (e) {
        if (!(e instanceof bodyScanner.Refusal)) {
            throw e;
        }
        return { refused: e.message };
    }
}

// First line: the lengths of the documents that follow it.
async function read(r) {
    const body = await r.readRequestArrayBuffer();
    const start = new Uint8Array(body).indexOf(0x0a) + 1;
    const lengths = JSON.parse(Buffer.from(body, 0, start).toString());
    let at = start;
    r.return(200, JSON.stringify(lengths.map((length) => facts(body.slice(at, at += length)))));
}

// Reads the body as the gateway does, as often as the argument `times` says.
async function cost(r) {
    const body = await r.readRequestArrayBuffer();
    let found;
    for (let n = Number(r.args.times); n > 0; n--) {
        found = facts(body);
        if (found.marked) {
            bodyScanner.rewritten(body);
        }
    }
    r.return(200, found.refused || 'read');
}

async function regexSizes(r) {
    const body = await r.readRequestJSON();
    r.return(200, JSON.stringify(body.map(outputConstraints.regexSize)));
}

// [{documents: [text], who, explicit}]: each list of documents has a memory of its own.
async function conversations(r) {
    const body = await r.readRequestJSON();
    r.return(200, JSON.stringify(body.map(({ documents, who, explicit }) => {
        const memory = new Map();
        return documents.map((text) => {
            return sessionAffinity.identify(bodyScanner.read(new TextEncoder().encode(text).buffer), who, explicit || '', memory);
        });
    })));
}

async function choices(r) {
    const body = await r.readRequestJSON();
    r.return(200, JSON.stringify(body.map(({ rules, facts, budget_ms, p95_ms }) => autoRouting.choose(rules, facts, budget_ms, (pool) => p95_ms[pool] || 0))));
}

async function refusedLinks(r) {
    const body = await r.readRequestJSON();
    r.return(200, JSON.stringify(body.map(({ url, domains }) => mediaUrls.refused([url], domains) !== undefined)));
}

async function hops(r) {
    const body = await r.readRequestJSON();
    r.return(200, JSON.stringify(body.map(({ variables, asked, fallback, some_up, earlier }) => {
        const read = retryPolicy.read(...variables);
        const hop = retryPolicy.next(read, asked, (pool) => fallback[pool] || '', earlier);
        return {
            next: hop ? `${hop.pool}${hop.variant && '.'}${hop.variant}` : '',
            left: retryPolicy.remainingBudget(read, earlier), outcome: retryPolicy.outcome(read, some_up, earlier), ended: retryPolicy.ended(read),
        };
    })));
}

// A shared dictionary with a clock that tests set.
class Memory {
    constructor() {
        this.entries = new Map();
        this.ms = 0;
    }

    get(key) {
        const entry = this.entries.get(key);
        return entry && entry.until > this.ms ? entry.value : undefined;
    }

    set(key, value, timeout) {
        this.entries.set(key, { value, until: this.ms + (timeout || 600_000) });
    }

    add(key, value, timeout) {
        const isNew = this.get(key) === undefined;
        if (isNew) {
            this.set(key, value, timeout);
        }
        return isNew;
    }

    delete(key) {
        this.entries.delete(key);
    }
}

// [[{at_s, client, digest, lost: [address] or answered}]]: each list has a memory of its own. The result of judge after
// each step.
async function losses(r) {
    const body = await r.readRequestJSON();
    r.return(200, JSON.stringify(body.map((steps) => {
        const memory = new Memory();
        return steps.map(({ at_s, client, digest, lost, was_answered }) => {
            memory.ms = at_s * 1000;
            if (lost) {
                lostRequests.record(client, '7', digest, lost, memory, memory.ms, was_answered);
            } else if (lost === null) {
                lostRequests.clear(client, digest, memory);
            }
            return Object.assign(lostRequests.judge(client, digest, memory), { isSuspect: lostRequests.hasLength(client, '7', memory) });
        });
    })));
}

async function described(r) {
    r.return(200, JSON.stringify(contentParts.describe(await r.readRequestArrayBuffer())));
}

async function digest(r) {
    r.return(200, JSON.stringify(await lostRequests.digest(await r.readRequestArrayBuffer())));
}

// First line: the lengths of the documents that follow it; each comes back with another model.
async function renamed(r) {
    const body = await r.readRequestArrayBuffer();
    const start = new Uint8Array(body).indexOf(0x0a) + 1;
    let at = start;
    const documents = JSON.parse(Buffer.from(body, 0, start).toString()).map((length) => body.slice(at, at += length));
    r.return(200, JSON.stringify(documents.map((one) => bodyScanner.withModel(one, 'another "one"').toString())));
}

export default { cost, renamed, choices, conversations, described, digest, hops, losses, read, refusedLinks, regexSizes };
