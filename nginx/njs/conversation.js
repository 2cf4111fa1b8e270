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
        const id = digest(`${who}\0explicit\0${explicit}`);
        return { id, known: id };
    }
    const { turns, answered } = facts;
    if (!turns.length) {
        return { id: '', known: '' };
    }
    const first = () => digest(`${who}\0first\0${JSON.stringify(facts.firstUser || turns[0])}`);
    if (!answered) {
        const id = first();
        memory.set(id, id);
        return { id, known: '' };
    }
    const chain = (to) => digest(`${who}\0turns\0${JSON.stringify(to < turns.length ? turns.slice(0, to) : turns)}`);
    const known = memory.get(chain(answered)) || memory.get(first()) || '';
    const now = chain(turns.length);
    const id = known || now;
    memory.set(now, id);
    return { id, known };
}

// The same first picture, whoever asks: for many questions about one document.
function picture(facts) {
    return facts.firstImage ? digest(facts.firstImage) : '';
}

// Of every byte, for what must be exactly the same.
function whole(bytes) {
    return crypto.createHash('sha256').update(bytes).digest('hex');
}

function digest(text) {
    return crypto.createHash('md5').update(text).digest('hex');
}

export default { identify, picture, whole };
