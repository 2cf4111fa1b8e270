// Names the content parts of a request that may be at fault, for an error message. Pure.

// Parsed in about 10 ms.
const MAX_BYTES = 8 * 1024 * 1024;
const MAX_NAMES = 4;
const TEXT_TYPES = ['text', 'input_text', 'output_text'];

// -> 'messages[0].content[1] (image_url), ...': the parts that are not only text, or '' if there are none. `bytes`: an
// ArrayBuffer with JSON.
function describe(bytes) {
    if (bytes.byteLength > MAX_BYTES) {
        return '';
    }
    const names = [];
    const body = JSON.parse(Buffer.from(bytes).toString());
    for (const list of ['messages', 'input']) {
        for (const [n, message] of Array.isArray(body[list]) ? body[list].entries() : []) {
            const content = message && message.content;
            for (const [m, part] of Array.isArray(content) ? content.entries() : []) {
                if (!isText(part)) {
                    names.push(`${list}[${n}].content[${m}] (${typeOf(part)})`);
                }
            }
        }
    }
    return names.length > MAX_NAMES ? `${names.slice(0, MAX_NAMES).join(', ')} and ${names.length - MAX_NAMES} more` : names.join(', ');
}

function isText(part) {
    return typeof part === 'object' && part !== null && TEXT_TYPES.includes(part.type) && Object.keys(part).length === 2;
}

function typeOf(part) {
    return typeof part === 'object' && part !== null && typeof part.type === 'string' ? part.type.slice(0, 32) : 'without type';
}

export default { describe };
