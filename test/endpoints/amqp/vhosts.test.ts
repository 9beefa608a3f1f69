/** Tests vhosts: their names in a URI, the reasons of a refusal, and a vhost that is down or deleted and comes back. */
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Disconnected, Refused } from '../../../src/core/errors'
import { describeWith } from '../../services/describe-with'
import type { SecureRabbitmqServer } from '../../services/rabbitmq'
import { start, type Running } from '../../support/manifold'
import { Broker } from './broker'
import { forever, makeSink, makeSource, openSink, openSource, take, until, writeOf } from './support'
import { makeEndpointContext, makeSourceContext } from '../../support/context'

const bodies = (n: number, from = 1): string[] => Array.from({ length: n }, (_, i) => `{"n":${from + i}}`)

describeWith('rabbitmq', 'vhosts', () => {
  let broker: Broker<SecureRabbitmqServer>
  let folder: string
  let serial = 0
  const running: Running[] = []
  // Those of a test that failed.
  afterEach(() => {
    for (const each of running.splice(0)) each.kill('SIGKILL')
  })
  beforeAll(async () => {
    broker = await Broker.startSecure()
    folder = mkdtempSync(join(tmpdir(), 'manifold-vhosts-'))
  }, 90_000)
  afterAll(async () => {
    await broker.stop()
    rmSync(folder, { recursive: true, force: true })
  }, 30_000)

  async function vhost(name = `v${++serial}`): Promise<string> {
    await broker.ctl('add_vhost', name)
    await broker.ctl('set_permissions', '-p', name, 'guest', '.*', '.*', '.*')
    return name
  }
  const at = (name: string, login = ''): string => broker.uri(`/${encodeURIComponent(name)}`, login)
  /** Its store is killed until the vhost gives up being restarted. */
  async function bringDown(name: string): Promise<void> {
    const kill = `case rabbit_vhost_sup_sup:get_vhost_sup(<<"${name}">>) of {ok, S} -> [exit(P, a_test) || {msg_store_persistent, P, _, _} <- supervisor:which_children(S), is_pid(P)]; _ -> none end, rabbit_vhost_sup_sup:is_vhost_alive(<<"${name}">>).`
    await until(async () => (await broker.ctl('eval', kill).catch((error: unknown) => String(error))).includes('false'))
  }
  const faultOf = async (open: Promise<unknown>): Promise<Error> => {
    const fault: unknown = await open.then(
      () => undefined,
      (reason: unknown) => reason,
    )
    expect(fault).toBeInstanceOf(Error)
    return fault as Error
  }
  async function seen(running: Running, text: RegExp): Promise<void> {
    let over = false
    void running.done.then(() => {
      over = true
    })
    await until(() => {
      if (over) throw new Error(`it ended without ${String(text)}: ${running.stderr().slice(-1000)}`)
      return text.test(running.stderr())
    })
  }

  test('a name with every kind of character, percent-encoded', async () => {
    const name = await vhost('a/b c%2F+ü?#@:')
    const given = { queue: 'here', declare: 'true' }
    const { sink } = await openSink(at(name), given)
    expect(await sink.write(writeOf(bodies(2)), forever)).toEqual({ retry: [], rejected: [] })
    await sink.close()
    const { source } = await openSource(at(name), given)
    expect((await take(source, 2)).entries.map(({ value }) => String(value))).toEqual(bodies(2))
    await source.close()
    expect(await broker.ctl('list_queues', '-p', name, 'name')).toMatch(/^here$/m)
  })

  test('why it does not let us in is told as the broker says it, also over TLS; what passes by itself is waited for', async () => {
    const [name, open] = [await vhost(), { queue: 'q', declare: 'true' }]
    const tls = (path: string): string => `${broker.server.tlsUri}/${path}`
    const secure = { ...open, ca: broker.server.certificates.ca }
    for (const fault of [
      await faultOf(openSource(at('nowhere'), open)),
      await faultOf(openSource(tls('nowhere'), secure)),
    ]) {
      expect(fault).toBeInstanceOf(Refused)
      expect(fault.message).toMatch(
        /^(127\.0\.0\.1|localhost):\d+ does not let guest into the vhost nowhere: vhost nowhere not found$/,
      )
    }
    const right = await faultOf(openSink(at(name, 'alice:alice-secret@'), open))
    expect(right).toBeInstanceOf(Refused)
    expect(right.message).toMatch(
      /does not let alice into the vhost v\d+: access to vhost 'v\d+' refused for user 'alice' \(a right that rabbitmqctl set_permissions/,
    )
    const { alice } = broker.server.certificates.clients
    const external = await faultOf(
      openSource(tls(name), { ...secure, authMechanism: 'external', cert: alice.cert, certKey: alice.key }),
    )
    expect(external.message).toMatch(
      /does not let this user into the vhost v\d+: access to vhost 'v\d+' refused for user 'alice'/,
    )
    await broker.ctl('set_vhost_limits', '-p', name, '{"max-connections":0}')
    const full = await faultOf(openSource(at(name), open))
    expect(full).toBeInstanceOf(Disconnected)
    expect(full.message).toMatch(/connection limit \(0\) is reached/)
    await broker.ctl('clear_vhost_limits', '-p', name)
    await bringDown(name)
    const down = await faultOf(openSource(at(name), open))
    expect(down).toBeInstanceOf(Disconnected)
    expect(down.message).toMatch(
      /does not let guest into the vhost v\d+: access to vhost 'v\d+' refused for user 'guest': vhost 'v\d+' is down/,
    )
    await broker.ctl('restart_vhost', '-p', name)
    const { source } = await openSource(at(name), open)
    await source.close()
  }, 60_000)

  test('one that is deleted under us and made again: named, refused while it is missing, and gone on with once it is there', async () => {
    const name = await vhost()
    const given = { queue: 'q', declare: 'quorum' }
    const [source, sink] = [await makeSource(at(name), given), await makeSink(at(name), given)]
    await source.open(makeSourceContext().ctx)
    await sink.open(makeEndpointContext().ctx)
    await broker.ctl('delete_vhost', name)
    await expect(source.read(forever)).rejects.toThrow(Disconnected)
    await expect(sink.write(writeOf(bodies(1)), forever)).rejects.toThrow(Disconnected)
    await Promise.all([source.close(), sink.close()])
    expect(await faultOf(source.open(makeSourceContext().ctx))).toBeInstanceOf(Refused)
    await source.close()
    await vhost(name)
    await source.open(makeSourceContext().ctx)
    await sink.open(makeEndpointContext().ctx)
    expect(await sink.write(writeOf(bodies(3)), forever)).toEqual({ retry: [], rejected: [] })
    expect((await take(source, 3)).entries.map(({ value }) => String(value))).toEqual(bodies(3))
    await Promise.all([source.close(), sink.close()])
  })

  test.each(['classic', 'quorum'])(
    'a vhost that goes down between two programs: both say so and go on when it is back, nothing missing, %s',
    async (type) => {
      const name = await vhost()
      const [input, output] = [join(folder, `in-${type}.ndjson`), join(folder, `out-${type}.ndjson`)]
      const [PART, COUNT] = [10_000, 30_000]
      const append = (from: number): void => {
        appendFileSync(
          input,
          bodies(PART, from)
            .map((each) => `${each}\n`)
            .join(''),
        )
      }
      const found = (): ReadonlySet<string> =>
        new Set(existsSync(output) ? readFileSync(output, 'utf8').split('\n').slice(0, -1) : [])
      const queue = [at(name), 'queue=q', `declare=${type}`]
      append(1)
      running.push(
        start(['--from', `file:${input}`, 'follow', '--to', ...queue, '--state', join(folder, `state-${type}`)]),
        start(['--from', ...queue, 'prefetch=2000', '--to', `file:${output}`]),
      )
      await until(() => found().size > 0)
      append(PART + 1)
      await bringDown(name)
      // A sink without records reports nothing.
      append(2 * PART + 1)
      for (const each of running) await seen(each, /vhost 'v\d+' is down/)
      await broker.ctl('restart_vhost', '-p', name)
      await until(() => found().size >= COUNT)
      for (const each of running) each.kill('SIGTERM')
      for (const { code, stderr } of await Promise.all(running.map(({ done }) => done)))
        expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' })
      expect([...found()].sort()).toEqual(bodies(COUNT).sort())
    },
    90_000,
  )
})
