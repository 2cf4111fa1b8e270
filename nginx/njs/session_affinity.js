// Finds the conversation of a request, so that its later turns go to the engine with its KV, image and encoder caches.
// It is found from the request, because every OpenAI client resends all turns each time. Pure except for the `memory`
// argument.

import crypto from 'crypto';

// -> { id, known }: `known` is empty if no engine can have cached this conversation.
//
// A first turn is never known: identical first requests of a batch must spread over the engines. A later turn is
// recognized by the turns before the last assistant turn, which are all turns of the previous request. If the client
// changed them (agents drop old screenshots), it is recognized by its first user message. Assistant turns that were not
// generated here (examples in a prompt) are not known; otherwise a batch with the same examples would pile up on one
// engine.
//
// facts: the result of bodyScanner.read; client: the result of apiKeys.clientId; explicit: an id from the client, or
// ''; memory: { get(key), set(key, id) }.
function identify(facts, client, explicit, memory) {
    if (explicit) {
        const id = digest(client + '\0explicit\0' + explicit);
        return { id, known: id };
    }
    const { turns, answered } = facts;
    if (!turns.length) {
        return { id: '', known: '' };
    }
    if (!answered) {
        const id = first(facts, client);
        memory.set(id, id);
        return { id, known: '' };
    }
    // All turns of a request are the turns before the answer in the next request.
    const before = client + '\0turns\0' + turns.slice(0, answered).join('\n');
    const now = digest(before + '\n' + turns.slice(answered).join('\n'));
    const known = memory.get(digest(before)) || memory.get(first(facts, client)) || '';
    memory.set(now, known || now);
    return { id: known || now, known };
}

function first(facts, client) {
    return digest(client + '\0first\0' + (facts.firstUser || facts.turns[0]));
}

// Identifies the first image, for all clients: many questions about one document go to one engine.
function imageId(facts) {
    return facts.firstImage ? digest(facts.firstImage) : '';
}

// Hash of every byte, for requests that must be identical.
function whole(arrayBuffer) {
    return crypto.createHash('sha256').update(new Uint8Array(arrayBuffer)).digest('hex');
}

function digest(text) {
    return crypto.createHash('sha1').update(text).digest('base64');
}

export default { identify, imageId, whole };
