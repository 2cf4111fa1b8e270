// Which conversation a request belongs to, so that its later turns go back to the engine that holds its KV, picture and
// encoder caches. Found from the request itself: every OpenAI client resends all turns each time. Pure but for the memory
// it is given.

import crypto from 'crypto';

// -> { id, known }: `known` is empty while no engine can have anything of this conversation.
//
// A first turn is never known: equal first requests of a batch must spread. A later turn is known by the turns before the
// assistant's last one, which are all the turns of the request before it. Where a client rewrote them (agents drop old
// screenshots) it is known by its first user message. Assistant turns that nobody here made (examples in a prompt) make
// nothing known, or a batch with the same examples would pile up on one engine.
//
// facts: of request.read; who: who asks; explicit: an id the client gave, or ''; memory: { get(key), set(key, id) }.
function identify(facts, who, explicit, memory) {
    if (explicit) {
        const id = digest(who + '\0explicit\0' + explicit);
        return { id, known: id };
    }
    const { turns, answered } = facts;
    if (!turns.length) {
        return { id: '', known: '' };
    }
    if (!answered) {
        const id = first(facts, who);
        memory.set(id, id);
        return { id, known: '' };
    }
    // All turns of one request are, in the next, the turns before the answer.
    const before = who + '\0turns\0' + turns.slice(0, answered).join('\n');
    const now = digest(before + '\n' + turns.slice(answered).join('\n'));
    const known = memory.get(digest(before)) || memory.get(first(facts, who)) || '';
    memory.set(now, known || now);
    return { id: known || now, known };
}

function first(facts, who) {
    return digest(who + '\0first\0' + (facts.firstUser || facts.turns[0]));
}

// The same first picture, whoever asks: for many questions about one document.
function picture(facts) {
    return facts.firstImage ? digest(facts.firstImage) : '';
}

// Of every byte, for what must be exactly the same.
function whole(arrayBuffer) {
    return crypto.createHash('sha256').update(new Uint8Array(arrayBuffer)).digest('hex');
}

function digest(text) {
    return crypto.createHash('sha1').update(text).digest('base64');
}

export default { identify, picture, whole };
