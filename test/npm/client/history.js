'use strict';
// A history of requests by the npm client etcd3. What is printed is compared between servers, so it holds no id and no
// time. The endpoint is the only argument.

const { Etcd3, Range, EtcdLockFailedError } = require('etcd3');

const hosts = 'http://' + process.argv[2];
const say = (what, value) => console.log(what + ': ' + JSON.stringify(value));
const once = (emitter, event) => new Promise((resolve, reject) => {
  emitter.once(event, resolve);
  emitter.once('error', reject);
});

async function failed(what, promise) {
  try {
    await promise;
    say(what, 'no error');
  } catch (err) {
    say(what, err.constructor.name);
  }
}

async function keys(client) {
  await client.put('a').value('1');
  await client.put('b').value('2');
  await client.put('c').value(Buffer.from([0, 255, 10]));
  say('get', await client.get('a').string());
  say('missing', await client.get('nothing'));
  say('number', await client.get('b').number());
  say('buffer', (await client.get('c').buffer()).toString('hex'));
  say('all', await client.getAll().prefix('').keys());
  say('range', await client.getAll().inRange(new Range('a', 'c')).strings());
  say('sorted', await client.getAll().sort('Key', 'Descend').limit(2).keys());
  say('count', await client.getAll().count());
  const prev = await client.put('a').value('11').getPrevious();
  say('previous', [prev.key.toString(), prev.value.toString(), prev.version]);
  await client.put('b').touch();
  say('touched', (await client.get('b').exec()).kvs[0].version);
  say('at revision', await client.get('a').revision(2).string());
  say('deleted', (await client.delete().key('c')).deleted);
  await failed('future revision', client.get('a').revision(1000).string());
  const ns = client.namespace('n/');
  await ns.put('x').value('y');
  say('namespace', [await ns.getAll().keys(), await client.get('n/x').string()]);
}

async function transactions(client) {
  const swap = (from, to) => client.if('a', 'Value', '==', from)
    .then(client.put('a').value(to), client.get('b'))
    .else(client.get('a'))
    .commit();
  say('txn', (await swap('11', '12')).succeeded);
  const not = await swap('11', '13');
  say('txn not', [not.succeeded, not.responses[0].response_range.kvs[0].value.toString()]);
  await failed('txn twice', client.if('a', 'Version', '>', 0).then(client.put('d').value(1), client.put('d').value(2)).commit());
  await client.stm().transact((tx) => tx.get('a').string().then((a) => tx.put('a').value(a + '!')));
  say('stm', await client.get('a').string());
}

async function watches(client) {
  const watcher = await client.watch().prefix('w/').withPreviousKV().create();
  const seen = [];
  const all = new Promise((resolve) => {
    watcher.on('put', (kv, old) => seen.push(['put', kv.key.toString(), kv.value.toString(), old ? old.value.toString() : null]));
    watcher.on('delete', (kv) => {
      seen.push(['delete', kv.key.toString()]);
      resolve();
    });
  });
  await client.put('w/1').value('a');
  await client.put('w/1').value('b');
  await client.put('elsewhere').value('x');
  await client.delete().key('w/1');
  await all;
  say('watched', seen);
  await watcher.cancel();
  const past = client.watch().key('a').startRevision('2').watcher();
  say('past', (await once(past, 'put')).value.toString());
  await past.cancel();
}

async function leases(client) {
  const lease = client.lease(100, { autoKeepAlive: false });
  const id = await lease.grant();
  await lease.put('leased').value('x');
  say('leased', (await client.get('leased').exec()).kvs[0].lease === id);
  await lease.keepaliveOnce();
  say('ttl', (await client.leaseClient.leaseTimeToLive({ ID: id, keys: true })).keys.map(String));
  await lease.revoke();
  say('revoked', await client.get('leased'));
  const short = client.lease(2, { autoKeepAlive: false });
  await short.put('expires').value('x');
  const watcher = await client.watch().key('expires').create();
  await once(watcher, 'delete');
  say('expired', await client.get('expires'));
  await watcher.cancel();
}

async function locks(client) {
  const first = client.lock('lock').ttl(30);
  await first.acquire();
  try {
    await client.lock('lock').acquire();
    say('second lock', 'acquired');
  } catch (err) {
    say('second lock', err instanceof EtcdLockFailedError);
  }
  await first.release();
  say('lock', await client.lock('lock').do(() => 'mine'));
}

async function elections(client) {
  const election = client.election('chair', 30);
  const campaign = election.campaign('ann');
  await once(campaign, 'elected');
  const observer = await election.observe();
  say('leader', observer.leader());
  const change = once(observer, 'change');
  await campaign.proclaim('anna');
  say('change', await change);
  const next = election.campaign('bob');
  const elected = once(next, 'elected');
  await campaign.resign();
  await elected;
  await observer.cancel();
  const again = await election.observe();
  say('next leader', again.leader());
  await again.cancel();
  await next.resign();
}

async function maintenance(client) {
  const status = await client.maintenance.status();
  say('status', [status.version.split('.').slice(0, 2), status.leader === status.header.member_id, status.errors]);
  say('members', (await client.cluster.memberList({})).members.map((m) => m.name));
  say('alarms', (await client.maintenance.alarm({ action: 'Get', memberID: 0, alarm: 'Nospace' })).alarms);
  await client.maintenance.defragment({});
  const snapshot = await client.maintenance.snapshot();
  let bytes = 0;
  snapshot.on('data', (part) => { bytes += part.blob.length; });
  await once(snapshot, 'end');
  say('snapshot', bytes % 512);
}

async function auth(client) {
  await client.role('readers').create();
  await client.role('readers').grant({ permission: 'Read', range: new Range('a', 'b') });
  say('permissions', (await client.role('readers').permissions()).map((p) => [p.permission, p.range.start.toString(), p.range.end.toString()]));
  await client.user('root').create('r');
  await client.user('root').addRole('root');
  await client.user('ann').create('secret');
  await client.user('ann').addRole('readers');
  say('roles', (await client.user('ann').roles()).map((r) => r.name));
  say('users', (await client.getUsers()).map((u) => u.name));
  await client.auth.authEnable({});
  const as = (username, password) => new Etcd3({ hosts, auth: { username, password } });
  const ann = as('ann', 'secret');
  say('ann reads', await ann.get('a').string());
  await failed('ann writes', ann.put('a').value('x').exec());
  await failed('ann reads b', ann.get('b').string());
  const stranger = as('ann', 'wrong');
  await failed('wrong password', stranger.get('a').string());
  await failed('nobody', client.get('a').string());
  const root = as('root', 'r');
  await root.put('a').value('by root');
  say('root', await root.get('a').string());
  await failed('exists', root.user('ann').create('x'));
  await failed('no such user', root.user('nobody').delete());
  await root.auth.authDisable({});
  for (const c of [ann, stranger, root]) c.close();
}

(async () => {
  const client = new Etcd3({ hosts });
  for (const part of [keys, transactions, watches, leases, locks, elections, maintenance, auth]) {
    console.log('# ' + part.name);
    await part(client);
  }
  client.close();
  console.log('# done');
})().catch((err) => {
  console.log('FAILED', err);
  process.exit(1);
});
