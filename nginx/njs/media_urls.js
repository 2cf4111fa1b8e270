// Which media URLs engines may fetch. Pure.
//
// Stricter than any URL parser: what two parsers could read differently (a backslash, user information, a blank, an
// address in another notation) is refused, because vLLM would ask the host that its own parser sees.

const LINK = /^https?:\/\/([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?::\d{1,5})?(?:[\/?#][\x21-\x5b\x5d-\x7e]*)?$/i;

// The first of the links whose host is not among `domains`, or undefined.
function refused(links, domains) {
    return links.find((link) => {
        const match = LINK.exec(link);
        return !match || !domains.includes(match[1].toLowerCase());
    });
}

export default { refused };
