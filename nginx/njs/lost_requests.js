// Remembers requests that ended engines: the connection broke after the request was sent and before an answer began.
// Pure except for `memory`, an njs shared dictionary: { get(key), set(key, value), add(key, value, timeoutMs),
// delete(key) }. Its entries expire after REFUSED_MS.
//
// When an engine ends, all of its requests lose it, although one of them caused it. So a loss that requests share counts
// half, and an answer clears a request's losses. A loss of a client that had answers to requests of this length counts
// half, too: a monitor that always sends the same request probably did not cause it. Each client has its own entries.

import crypto from 'crypto';

// The timeout of the zone in nginx.conf.
const REFUSED_MS = 600_000;
// Losses of one engine within this time are one loss.
const TOGETHER_MS = 5000;
// A request is refused after two losses alone, or four shared losses.
const REFUSED_FROM = 4, ALONE = 2, SHARED = 1;
// Hashed without a pause: about 3 ms.
const CHUNK_BYTES = 1024 * 1024;

// Whether `memory` has an entry of the client for this length: if it has losses, the digest of the request is needed.
// Cheap, because it runs for every request. length: the header Content-Length, or undefined.
function hasLength(client, length, memory) {
    return memory.get(lengthKey(client, length)) !== undefined;
}

// Hash of every byte. Other requests are served between the chunks of a large body.
async function digest(arrayBuffer) {
    const hash = crypto.createHash('sha256'), length = arrayBuffer.byteLength;
    for (let at = 0; at < length; at += CHUNK_BYTES) {
        if (at) {
            await new Promise((resolve) => setTimeout(resolve, 0));
        }
        hash.update(new Uint8Array(arrayBuffer, at, Math.min(CHUNK_BYTES, length - at)));
    }
    return hash.digest('hex');
}

// -> { losses: number; isRefused; untilMs: when its losses are forgotten }
function judge(client, hash, memory) {
    const losses = lossesOf(client, hash, memory);
    const points = losses.reduce((sum, loss) => sum + (memory.get(`shared ${loss}`) ? SHARED : ALONE), 0);
    const last = losses.length ? Number(losses[losses.length - 1].split('@')[1]) : 0;
    return { losses: losses.length, isRefused: points >= REFUSED_FROM, untilMs: last + REFUSED_MS };
}

// Notes an answer to a request of this length. `memory`: another dictionary, whose entries expire after REFUSED_MS too.
function noteAnswer(client, length, memory) {
    memory.add(lengthKey(client, length), '1');
}

// Records that a request without an answer lost the engines at these addresses. wasAnswered: whether the client had
// answers to requests of this length.
function record(client, length, hash, addresses, memory, nowMs, wasAnswered) {
    const losses = lossesOf(client, hash, memory);
    addresses.forEach((address, n) => {
        const loss = lossOf(`${address}#${addresses.slice(0, n).filter((earlier) => earlier === address).length}`, hash, memory, nowMs);
        if (!losses.includes(loss)) {
            losses.push(loss);
        }
        if (wasAnswered) {
            memory.set(`shared ${loss}`, '1');
        }
    });
    memory.set(`losses ${client}\0${hash}`, losses.join(' '));
    memory.set(lengthKey(client, length), '1');
}

// The name of the loss, ADDRESS@MS. Records whether another request shares it.
function lossOf(address, hash, memory, nowMs) {
    memory.add(`now ${address}`, `${address}@${nowMs} ${hash}`, TOGETHER_MS);
    const [loss, first] = (memory.get(`now ${address}`) || `${address}@${nowMs} ${hash}`).split(' ');
    if (first !== hash) {
        memory.set(`shared ${loss}`, '1');
    }
    return loss;
}

function clear(client, hash, memory) {
    memory.delete(`losses ${client}\0${hash}`);
}

function lossesOf(client, hash, memory) {
    return (memory.get(`losses ${client}\0${hash}`) || '').split(' ').filter(Boolean);
}

function lengthKey(client, length) {
    return `length ${client}\0${length}`;
}

export default { clear, digest, hasLength, judge, noteAnswer, record };
