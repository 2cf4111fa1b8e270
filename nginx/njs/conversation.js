// Which conversation a request belongs to, so that its later turns go back to the engine that holds its KV, picture and
// encoder caches. Found from the request itself: every OpenAI client resends all turns each time. Pure but for the memory
// it is given.

import crypto from 'crypto';

// Longer ranges are hashed by samples: what differs between two conversations differs in many places, or in the text at
// either end. A collision only sends two conversations to one engine.
const HASHED_WHOLE = 8192;
const END_BYTES = 2048;
const SAMPLES = 8;
const SAMPLE_BYTES = 256;

// -> { id, known }: `known` is empty while no engine can have anything of this conversation.
//
// A first turn is never known: equal first requests of a batch must spread. A later turn is known by the turns before the
// assistant's last one, which are all the turns of the request before it. Where a client rewrote them (agents drop old
// screenshots) it is known by its first user message. Assistant turns that nobody here made (examples in a prompt) make
// nothing known, or a batch with the same examples would pile up on one engine.
//
// bytes: Uint8Array of the body; facts: of request.read; who: who asks; explicit: an id the client gave, or '';
// memory: { get(key), set(key, id) }.
function identify(bytes, facts, who, explicit, memory) {
    if (explicit) {
        const id = digest(`${who}\0explicit\0${explicit}`);
        return { id, known: id };
    }
    if (!facts.turns) {
        return { id: '', known: '' };
    }
    const turns = hash(bytes, facts.turns, who);
    const first = facts.firstUser ? hash(bytes, facts.firstUser, who) : turns;
    let found = '';
    if (facts.turnsBefore) {
        found = memory.get(hash(bytes, facts.turnsBefore, who)) || memory.get(`first ${first}`) || '';
    }
    const id = found || (facts.turnsBefore ? turns : first);
    memory.set(turns, id);
    if (!facts.turnsBefore) {
        memory.set(`first ${first}`, id);
    }
    return { id, known: found };
}

// The same first picture, whoever asks: for many questions about one document.
function picture(bytes, facts) {
    return facts.firstImage ? hash(bytes, facts.firstImage, 'picture') : '';
}

// Of every byte, for what must be exactly the same.
function whole(bytes) {
    return crypto.createHash('sha256').update(bytes).digest('hex');
}

function hash(bytes, range, salt) {
    const [from, to] = range, length = to - from;
    const hashing = crypto.createHash('md5').update(`${salt}\0${length}\0`);
    if (length <= HASHED_WHOLE) {
        return hashing.update(bytes.subarray(from, to)).digest('hex');
    }
    hashing.update(bytes.subarray(from, from + END_BYTES));
    const stride = Math.floor((length - 2 * END_BYTES) / SAMPLES);
    for (let n = 0; n < SAMPLES; n++) {
        const at = from + END_BYTES + n * stride;
        hashing.update(bytes.subarray(at, at + SAMPLE_BYTES));
    }
    return hashing.update(bytes.subarray(to - END_BYTES, to)).digest('hex');
}

function digest(text) {
    return crypto.createHash('md5').update(text).digest('hex');
}

export default { identify, picture, whole };
