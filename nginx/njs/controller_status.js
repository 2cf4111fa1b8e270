// The controller's last status, in shared memory for all workers: "status" is its JSON, "engine ADDRESS" an engine's
// name, "up POOL" and "p95 POOL" the values that single requests need.

const STALE_MS = 10_000;

// Runs every second. While the controller does not answer, its last status remains.
async function refresh(session) {
    let answer;
    try {
        const reply = await ngx.fetch(`${session.variables.manyeyes_controller}/status`);
        if (reply.status !== 200) {
            return;
        }
        answer = await reply.json();
    } catch (e) {
        return;
    }
    const cluster = ngx.shared.cluster;
    answer.at = Date.now();
    answer.pools.forEach((pool) => {
        cluster.set(`up ${pool.name}`, String(pool.up));
        cluster.set(`p95 ${pool.name}`, String(pool.p95_ms || 0));
        pool.engines.forEach((member) => {
            if (member.address) {
                cluster.set(`engine ${member.address}`, member.name);
            }
        });
    });
    cluster.set('status', JSON.stringify(answer));
}

// { pools, ageS: seconds since the controller last answered, or null; isFresh }
function status() {
    const answer = JSON.parse(ngx.shared.cluster.get('status') || '{}');
    const age = answer.at === undefined ? Infinity : Date.now() - answer.at;
    return { pools: answer.pools || [], ageS: age === Infinity ? null : Math.round(age / 1000), isFresh: age <= STALE_MS };
}

function pools() {
    return status().pools;
}

// The name of the engine at an address, or ''.
function engine(address) {
    return ngx.shared.cluster.get(`engine ${address}`) || '';
}

// The state of the engine at an address, or ''.
function state(address) {
    for (const pool of pools()) {
        const member = pool.engines.find((one) => one.address === address);
        if (member) {
            return member.state;
        }
    }
    return '';
}

function up(pool) {
    return Number(ngx.shared.cluster.get(`up ${pool}`) || 0);
}

// 0 while not measured.
function p95Ms(pool) {
    return Number(ngx.shared.cluster.get(`p95 ${pool}`) || 0);
}

export default { engine, p95Ms, pools, refresh, state, status, up };
