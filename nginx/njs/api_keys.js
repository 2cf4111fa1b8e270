// Authenticates clients. Keys are looked up by their SHA-256 in a map rendered from the keys file, so the time of a
// comparison reveals nothing about a key.

import crypto from 'crypto';
import fs from 'fs';

const PAGE_KEY = '/run/secrets/manyeyes/page.key';
// The value of X-ManyEyes-Key for requests of the operator, which belong to no key. No key can have this name.
const OPERATOR = '-';

// $manyeyes_key_hash: hash of the key in `Authorization: Bearer KEY`, or of the password in `Basic`, which browsers
// send. The web page sends the name of its user's key instead.
function hash(r) {
    const name = r.variables.manyeyes_is_page && r.headersIn['X-ManyEyes-Key'];
    if (name) {
        return proof(r) === 'page' ? `name:${name}` : '';
    }
    const [scheme, value] = (r.headersIn.Authorization || '').split(/ +/);
    const key = /^bearer$/i.test(scheme) ? value : /^basic$/i.test(scheme) ? password(value) : '';
    return key ? digest(key) : '';
}

function password(encoded) {
    const text = Buffer.from(encoded || '', 'base64').toString();
    return text.slice(text.indexOf(':') + 1);
}

// Whether the client needs no other key: its key is known, no key is required, or it is the operator.
function isAuthorized(r) {
    const v = r.variables;
    return Boolean(v.manyeyes_key) || v.manyeyes_anonymous === '1'
        || Boolean(v.manyeyes_is_page) && r.headersIn['X-ManyEyes-Key'] === OPERATOR && proof(r) === 'page';
}

// Whether a web site may have sent the request with the name that it gave this address (DNS rebinding). Browsers send
// Origin with every POST. Such a site has no key.
function isFromStrangeSite(r) {
    const v = r.variables;
    return Boolean(r.headersIn.Origin) && !v.manyeyes_key && !v.manyeyes_is_page && !v.manyeyes_own_host;
}

// How a request at the internal port shows that it comes from the page: 'page' with the page's key, '' with another or
// none. 'open' if there is no page key, as after a `docker compose up` without `make up`: such a request may name no
// API key.
function proof(r) {
    const v = r.variables;
    if (!v.manyeyes_proof) {
        v.manyeyes_proof = findProof(r.headersIn['X-ManyEyes-Page-Key'] || '');
    }
    return v.manyeyes_proof === 'none' ? '' : v.manyeyes_proof;
}

function findProof(given) {
    let key = '';
    try {
        key = fs.readFileSync(PAGE_KEY, 'utf8').trim();
    } catch (e) {
        if (e.code !== 'ENOENT') {
            return 'none';
        }
    }
    // The time of a comparison of digests reveals nothing about the key.
    return !key ? 'open' : digest(given) === digest(key) ? 'page' : 'none';
}

// Whether the request came to the internal port and may do so.
function isFromPage(r) {
    return Boolean(r.variables.manyeyes_is_page && proof(r));
}

// Identifies a client in session affinity: its key, and its session of the page or its address. Only the page may name
// a session.
function clientId(r) {
    return r.variables.manyeyes_key + '\0' + (isFromPage(r) && r.headersIn['X-ManyEyes-Page'] || r.remoteAddress);
}

function digest(text) {
    return crypto.createHash('sha256').update(text).digest('hex');
}

export default { clientId, digest, hash, isAuthorized, isFromPage, isFromStrangeSite };
