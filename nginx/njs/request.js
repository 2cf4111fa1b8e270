// What the gateway needs to know of a request body, found without parsing it. Pure: bytes in, facts out.
//
// A body is mostly one long string (a picture in base64). Strings are jumped over by a native search for their closing
// quote, which takes 0.04 ms for 2 MB; JSON.parse takes 1.4 ms, and wants the bytes turned into text first.
// The structure around the strings is checked (a cut or unbalanced body is refused); what is inside numbers and strings is
// the engine's to judge. Where a key comes twice the last one counts, as in Python's json.

const MAX_DEPTH = 200;
// Bounds the time a hostile body can take: a step is about 60 ns.
const MAX_STEPS = 2_000_000;
const MAX_NAME_BYTES = 512;
const MAX_LINK_BYTES = 8192;

const QUOTE = 0x22, BACKSLASH = 0x5c, COLON = 0x3a, COMMA = 0x2c;
const OPEN_OBJECT = 0x7b, CLOSE_OBJECT = 0x7d, OPEN_ARRAY = 0x5b, CLOSE_ARRAY = 0x5d;

// What a container is, by its place.
const OUTSIDE = 0, ROOT = 1, MESSAGES = 2, MESSAGE = 3, CONTENT = 4, PART = 5, MEDIA = 6, PROMPTS = 7, REASONING = 8,
    INSIDE_MESSAGE = 9, OTHER = 10;

// What may come next.
const VALUE = 0, VALUE_OR_END = 1, KEY = 2, KEY_OR_END = 3, A_COLON = 4, COMMA_OR_END = 5, NOTHING = 6;

const MEDIA_KEYS = new Set(['image_url', 'video_url', 'audio_url', 'file_url']);
const SYSTEM_ROLES = new Set(['system', 'developer']);
// Items of a `responses` input that only a model makes.
const MADE_BY_A_MODEL = new Set(['function_call', 'reasoning']);

class Refusal extends Error {}

// bytes: ArrayBuffer -> {
//   model: string or null, modelAt: [from, to] of its value, quotes included;
//   stream: boolean; temperature: number or null; effort, cacheKey: string;
//   images, videos: how many; textBytes: of all texts, as they are written in the body;
//   firstImage: [from, to] of the first picture's URL or null;
//   links: media URLs that are not `data:`;
//   firstUser: [from, to] of the first user message's content or null;
//   turns: [from, to] of all messages after the leading system messages, or null;
//   turnsBefore: the same up to the last assistant turn; null while there is none (a first turn)
// } Ranges are byte offsets, `to` excluded. Throws Refusal.
function read(bytes) {
    return new Scan(bytes).run();
}

class Scan {
    constructor(arrayBuffer) {
        this.bytes = new Uint8Array(arrayBuffer);
        this.buffer = Buffer.from(arrayBuffer);
        this.steps = 0;
        this.facts = { model: null, modelAt: null, stream: false, temperature: null, effort: '', cacheKey: '', links: [] };
        this.forgetMessages();
    }

    run() {
        const bytes = this.bytes, length = bytes.length;
        const outer = [];  // of the containers around this one: kind, key, isObject
        let kind = OUTSIDE, isObject = false, key = '', expected = VALUE, at = 0;
        while (at < length) {
            if (++this.steps > MAX_STEPS) {
                throw tooIntricate();
            }
            const byte = bytes[at];
            if (byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09) {
                at++;
            } else if (expected === A_COLON) {
                if (byte !== COLON) {
                    throw notJson(at);
                }
                expected = VALUE;
                at++;
            } else if (expected === COMMA_OR_END && byte === COMMA) {
                expected = isObject ? KEY : VALUE;
                at++;
            } else if (byte === QUOTE && (expected === KEY || expected === KEY_OR_END)) {
                const end = this.stringEnd(at + 1);
                key = kind === OTHER ? '' : this.text(at + 1, end, MAX_NAME_BYTES);
                at = end + 1;
                expected = A_COLON;
            } else if (expected === VALUE || (expected === VALUE_OR_END && byte !== CLOSE_ARRAY)) {
                if (byte === OPEN_OBJECT || byte === OPEN_ARRAY) {
                    if (outer.length >= 3 * MAX_DEPTH) {
                        throw new Refusal(`The request body is nested more than ${MAX_DEPTH} deep.`);
                    }
                    outer.push(kind, key, isObject);
                    isObject = byte === OPEN_OBJECT;
                    kind = this.open(kind, key, isObject, at);
                    expected = isObject ? KEY_OR_END : VALUE_OR_END;
                    at++;
                    continue;
                }
                if (kind === OUTSIDE) {
                    throw new Refusal('The request body must be a JSON object.');
                }
                const end = byte === QUOTE ? this.stringEnd(at + 1) + 1 : this.primitiveEnd(at);
                if (kind !== OTHER && byte === QUOTE) {
                    this.string(kind, key, at + 1, end - 1);
                } else if (kind === ROOT) {
                    this.primitive(key, at, end);
                }
                at = end;
                expected = COMMA_OR_END;
            } else {
                if (byte !== (isObject ? CLOSE_OBJECT : CLOSE_ARRAY) || expected === NOTHING || expected === KEY) {
                    throw notJson(at);
                }
                at++;
                this.close(kind, at);
                isObject = outer.pop();
                key = outer.pop();
                kind = outer.pop();
                expected = kind === OUTSIDE ? NOTHING : COMMA_OR_END;
            }
        }
        if (expected !== NOTHING) {
            throw new Refusal('The request body is not valid JSON: it ends too early.');
        }
        return this.result();
    }

    // --- what a place means ---------------------------------------------------------------------------------------

    // The kind of the container that begins at `at` under `key` of a container of kind `around`.
    open(around, key, isObject, at) {
        switch (around) {
        case OUTSIDE:
            if (!isObject) {
                throw new Refusal('The request body must be a JSON object.');
            }
            return ROOT;
        case ROOT:
            this.unset(key);
            if (key === 'messages' || key === 'input') {
                this.forgetMessages();
                return isObject ? OTHER : MESSAGES;
            }
            if (key === 'prompt' && !isObject) {
                this.promptBytes = 0;
                return PROMPTS;
            }
            return key === 'reasoning' && isObject ? REASONING : OTHER;
        case MESSAGES:
            if (!isObject) {
                return INSIDE_MESSAGE;
            }
            this.message = startingMessage(at);
            return MESSAGE;
        case MESSAGE:
            if (key === 'content') {
                this.message.content = startingContent(at);
                return isObject ? INSIDE_MESSAGE : CONTENT;
            }
            if (key === 'output' && !isObject) {  // what a tool gave back may hold pictures too
                this.message.content = this.message.content || startingContent(at);
                return CONTENT;
            }
            return INSIDE_MESSAGE;
        case CONTENT:
            if (!isObject) {
                return INSIDE_MESSAGE;
            }
            this.part = { image: false, video: false, textBytes: 0, firstImage: null };
            return PART;
        case PART:
            if (MEDIA_KEYS.has(key)) {
                this.medium(key, null);
                this.mediaKey = key;
                return isObject ? MEDIA : INSIDE_MESSAGE;
            }
            return INSIDE_MESSAGE;
        case MEDIA:
        case INSIDE_MESSAGE:
            return INSIDE_MESSAGE;
        default:
            return OTHER;
        }
    }

    // A string in [from, to), quotes excluded.
    string(kind, key, from, to) {
        const facts = this.facts;
        switch (kind) {
        case ROOT:
            this.unset(key);
            if (key === 'model') {
                facts.model = this.text(from, to, MAX_NAME_BYTES);
                facts.modelAt = [from - 1, to + 1];
            } else if (key === 'prompt_cache_key') {
                facts.cacheKey = this.text(from, to, MAX_NAME_BYTES);
            } else if (key === 'reasoning_effort') {
                facts.effort = this.text(from, to, MAX_NAME_BYTES);
            } else if (key === 'prompt') {
                this.promptBytes = to - from;
            } else if (key === 'messages' || key === 'input') {
                this.forgetMessages();
                if (key === 'input') {
                    this.messages.textBytes = to - from;
                    this.messages.firstUser = [from, to];
                    this.messages.start = from;
                    this.messages.end = to;
                }
            }
            break;
        case REASONING:
            if (key === 'effort') {
                facts.effort = this.text(from, to, MAX_NAME_BYTES);
            }
            break;
        case PROMPTS:
            this.promptBytes += to - from;
            break;
        case MESSAGE:
            if (key === 'role') {
                this.message.role = this.text(from, to, MAX_NAME_BYTES);
            } else if (key === 'type') {
                this.message.type = this.text(from, to, MAX_NAME_BYTES);
            } else if (key === 'content') {
                this.message.content = startingContent(from);
                this.message.content.to = to;
                this.message.content.textBytes = to - from;
            } else if (MEDIA_KEYS.has(key)) {
                this.link(from, to);
            }
            break;
        case CONTENT:
            this.message.content.textBytes += to - from;
            break;
        case PART:
            if (key === 'text') {
                this.part.textBytes = to - from;
            } else if (MEDIA_KEYS.has(key)) {
                this.medium(key, [from, to]);
                this.link(from, to);
            }
            break;
        case MEDIA:
            if (key === 'url') {
                this.medium(this.mediaKey, [from, to]);
                this.link(from, to);
            }
            break;
        case INSIDE_MESSAGE:
            if (key === 'url' || MEDIA_KEYS.has(key)) {
                this.link(from, to);
            }
            break;
        }
    }

    // A number or a word at the top, in [from, to).
    primitive(key, from, to) {
        this.unset(key);
        if (key === 'stream') {
            this.facts.stream = this.text(from, to, MAX_NAME_BYTES) === 'true';
        } else if (key === 'temperature') {
            const value = Number(this.text(from, to, MAX_NAME_BYTES));
            this.facts.temperature = Number.isFinite(value) ? value : null;
        } else if (key === 'messages' || key === 'input') {
            this.forgetMessages();
        } else if (key === 'prompt') {
            this.promptBytes = 0;
        }
    }

    // A container of this kind ends before `at`.
    close(kind, at) {
        if (kind === PART) {
            this.message.content.add(this.part);
        } else if (kind === CONTENT) {
            this.message.content.to = at;
        } else if (kind === MESSAGE) {
            this.messageEnds(at);
        }
    }

    messageEnds(at) {
        const { role, type, content, start } = this.message;
        const messages = this.messages;
        if (!SYSTEM_ROLES.has(role) && messages.start < 0) {
            messages.start = start;
        }
        if ((role === 'assistant' || MADE_BY_A_MODEL.has(type)) && messages.start >= 0) {
            messages.before = messages.end;
        }
        messages.end = at;
        if (role === 'user' && messages.firstUser === null && content) {
            messages.firstUser = [content.from, content.to];
        }
        if (content) {
            messages.images += content.images;
            messages.videos += content.videos;
            messages.textBytes += content.textBytes;
            messages.firstImage = messages.firstImage || content.firstImage;
        }
        this.message = null;
    }

    forgetMessages() {
        this.messages = { start: -1, end: -1, before: -1, firstUser: null, firstImage: null, images: 0, videos: 0, textBytes: 0 };
        this.promptBytes = this.promptBytes || 0;
    }

    // A top-level key that comes again replaces what it said before.
    unset(key) {
        if (key === 'model') {
            this.facts.model = this.facts.modelAt = null;
        } else if (key === 'temperature') {
            this.facts.temperature = null;
        } else if (key === 'stream') {
            this.facts.stream = false;
        } else if (key === 'prompt_cache_key') {
            this.facts.cacheKey = '';
        }
    }

    medium(key, at) {
        if (key === 'image_url') {
            this.part.image = true;
            this.part.firstImage = at || this.part.firstImage;
        } else if (key === 'video_url') {
            this.part.video = true;
        }
    }

    link(from, to) {
        const bytes = this.bytes;
        if (bytes[from] === 0x64 && bytes[from + 1] === 0x61 && bytes[from + 2] === 0x74 && bytes[from + 3] === 0x61
            && bytes[from + 4] === COLON) {
            return;  // data:
        }
        const url = this.text(from, Math.min(to, from + MAX_LINK_BYTES), MAX_LINK_BYTES);
        if (!/^\s*data:/i.test(url)) {
            this.facts.links.push(to - from > MAX_LINK_BYTES ? '' : url);
        }
    }

    result() {
        const { start, end, before, firstUser, firstImage, images, videos, textBytes } = this.messages;
        const range = (to) => (start >= 0 && to > start ? [start, to] : null);
        return Object.assign(this.facts, {
            images, videos, firstImage, firstUser, textBytes: textBytes + this.promptBytes, turns: range(end), turnsBefore: range(before),
        });
    }

    // --- reading --------------------------------------------------------------------------------------------------

    count(steps) {
        this.steps += steps;
        if (this.steps > MAX_STEPS) {
            throw tooIntricate();
        }
    }

    // Where the string that begins at `from` has its closing quote.
    stringEnd(from) {
        const bytes = this.bytes;
        let end = bytes.indexOf(QUOTE, from);
        while (end >= 0) {
            let first = end;
            while (first > from && bytes[first - 1] === BACKSLASH) {
                first--;
            }
            this.count(1 + end - first);
            if ((end - first) % 2 === 0) {
                return end;
            }
            end = bytes.indexOf(QUOTE, end + 1);
        }
        throw new Refusal('The request body is not valid JSON: a string does not end.');
    }

    primitiveEnd(from) {
        const bytes = this.bytes, length = bytes.length;
        let at = from;
        while (at < length) {
            const byte = bytes[at];
            if (byte === COMMA || byte === CLOSE_OBJECT || byte === CLOSE_ARRAY || byte <= 0x20) {
                break;
            }
            if (byte === QUOTE || byte === COLON || byte === OPEN_OBJECT || byte === OPEN_ARRAY) {
                throw notJson(at);
            }
            at++;
        }
        if (at === from) {
            throw notJson(at);
        }
        this.count(at - from);
        return at;
    }

    // The string written in [from, to); of a longer one than `most` the first bytes, as they are.
    text(from, to, most) {
        const raw = this.buffer.toString('utf8', from, Math.min(to, from + most));
        if (to - from > most || raw.indexOf('\\') < 0) {
            return raw;
        }
        try {
            return JSON.parse(`"${raw}"`);
        } catch (e) {
            throw new Refusal('The request body is not valid JSON: a string holds an escape that does not exist.');
        }
    }
}

function startingMessage(start) {
    return { start, role: '', type: '', content: null };
}

function startingContent(from) {
    return {
        from, to: from, images: 0, videos: 0, textBytes: 0, firstImage: null,
        add(part) {
            this.images += part.image ? 1 : 0;
            this.videos += part.video ? 1 : 0;
            this.textBytes += part.textBytes;
            this.firstImage = this.firstImage || part.firstImage;
        },
    };
}

function tooIntricate() {
    return new Refusal('The request body is too intricate: it has millions of parts or escapes.');
}

function notJson(at) {
    return new Refusal(`The request body is not valid JSON at byte ${at}.`);
}

export default { read, Refusal };
