// Finds a request whose top-level `model` is written more than once, or in another case. Parsers differ in which of them
// they use: the first, the last, or any case. Such a request could be checked for one model and answered by another. Pure.

const MODEL = '"model"';

// body: what JSON.parse made of `text`.
function isRepeated(text, body) {
    for (const key in body) {
        if (key.length === MODEL.length - 2 && key !== 'model' && key.toLowerCase() === 'model') {
            return true;
        }
    }
    const isEscaped = text.indexOf('\\u004') >= 0 || text.indexOf('\\u006') >= 0;
    return (isEscaped || text.indexOf(MODEL, text.indexOf(MODEL) + 1) >= 0) && countMembers(text) > 1;
}

// Number of top-level members with the name `model`. JSON.parse gives only the last of equal members, so each name gets
// a number first. The numbers also change values, which are not used.
function countMembers(text) {
    const plain = text.replace(/\\(?:u00([46][0-9a-f])|[^])/gi, (all, code) => (code ? String.fromCharCode(parseInt(code, 16)) : all));
    const pieces = plain.split(MODEL);
    let numbered = pieces[0];
    for (let n = 1; n < pieces.length; n++) {
        numbered += `"model\\u0000${n}"${pieces[n]}`;
    }
    return Object.keys(JSON.parse(numbered)).filter((key) => key.startsWith('model\0')).length;
}

export default { isRepeated };
