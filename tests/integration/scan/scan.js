// Runs the gateway's modules over many inputs at once, for tests: the request's first line lists what to do.
import retryPolicy from 'retry_policy.js';
import autoRouting from 'auto_routing.js';
import sessionAffinity from 'session_affinity.js';
import mediaUrls from 'media_urls.js';
import bodyScanner from 'body_scanner.js';

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
    r.return(200, JSON.stringify(body.map(({ variables, asked, fallback, some_up }) => {
        const read = retryPolicy.read(...variables);
        const hop = retryPolicy.next(read, asked, (pool) => fallback[pool] || '');
        return { next: hop ? `${hop.pool}${hop.variant && '.'}${hop.variant}` : '', left: retryPolicy.remainingBudget(read), outcome: retryPolicy.outcome(read, some_up) };
    })));
}

// First line: the lengths of the documents that follow it; each comes back with another model.
async function renamed(r) {
    const body = await r.readRequestArrayBuffer();
    const start = new Uint8Array(body).indexOf(0x0a) + 1;
    let at = start;
    const documents = JSON.parse(Buffer.from(body, 0, start).toString()).map((length) => body.slice(at, at += length));
    r.return(200, JSON.stringify(documents.map((one) => bodyScanner.withModel(one, 'another "one"').toString())));
}

export default { renamed, choices, conversations, hops, read, refusedLinks };
