/**
 * Connections to the brokers of a cluster, one for each broker and purpose. A broker answers the requests of a
 * connection in order: with one for each purpose a long poll, a join or a slow append holds up nothing else. The
 * versions of its API are asked for once per broker.
 */
import { Disconnected, lineOf, ManifoldError, Refused } from '../../core/errors'
import { unlessAborted } from '../../kit/signal'
import { saslOf } from './client-login'
import { BrokerConnection, type ApiVersions } from './protocol/connection'
import type { Library } from './protocol/library'
import type { BrokerAddress, Settings } from './settings'

export type Purpose = 'control' | 'fetch' | 'produce' | 'group' | 'join'
interface ConnectionSlot {
  readonly connection: Promise<BrokerConnection>
}

const MIB = 1024 * 1024
/** Beyond what a fetch asks for, a broker sends a single batch whole, however large (`message.max.bytes`). */
const MAX_ANSWER_BYTES: Readonly<Record<Purpose, number>> = {
  control: 64 * MIB,
  fetch: 512 * MIB,
  produce: 16 * MIB,
  group: 64 * MIB,
  join: 64 * MIB,
}

export class BrokerConnections {
  private readonly slots = new Map<string, ConnectionSlot>()
  private readonly versions = new Map<string, ApiVersions>()
  private closed = false

  constructor(
    private readonly library: Library,
    private readonly settings: Settings,
  ) {}

  close(): void {
    this.closed = true
    // A connection that could not be opened has rejected for its caller and needs no closing.
    for (const { connection } of [...this.slots.values()])
      void connection.then(
        (open) => {
          open.drop()
        },
        () => undefined,
      )
    this.slots.clear()
  }

  /**
   * Returns a connection for requests that every broker answers: an open one, or else to the first broker that can be
   * reached. @param brokers those that are known, besides the hosts of the URI
   */
  async any(brokers: Iterable<BrokerAddress>, signal: AbortSignal): Promise<BrokerConnection> {
    const addresses = new Map(
      [...brokers, ...this.settings.hosts].map((address) => [keyOf('control', address), address]),
    )
    for (const key of addresses.keys()) {
      const slot = this.slots.get(key)
      // The caller that opened it has been told why it failed; here the next one is tried.
      const open =
        slot === undefined
          ? undefined
          : await unlessAborted(
              slot.connection.catch(() => undefined),
              signal,
            )
      if (open?.isUsable === true) return open
    }
    const failures: unknown[] = []
    for (const address of addresses.values()) {
      try {
        return await this.to('control', address, this.settings.requestMs, signal)
      } catch (error) {
        if (signal.aborted || !(error instanceof ManifoldError) || error instanceof Refused) throw error
        failures.push(error)
      }
    }
    throw new Disconnected(
      failures.length === 1 ? lineOf(failures[0]) : `no broker can be reached: ${failures.map(lineOf).join('; ')}`,
      { cause: failures[0] },
    )
  }

  /** Returns the connection of that purpose, opened where there is none. Callers share one that is being opened. */
  async to(
    purpose: Purpose,
    address: BrokerAddress,
    requestMs: number,
    signal: AbortSignal,
  ): Promise<BrokerConnection> {
    if (this.closed) throw new Disconnected('closed here')
    const key = keyOf(purpose, address)
    const known = this.slots.get(key)
    if (known !== undefined) {
      const connection = await unlessAborted(known.connection, signal)
      if (connection.isUsable) return connection
    }
    const slot: ConnectionSlot = {
      connection: this.open(
        purpose,
        address,
        requestMs,
        () => {
          if (this.slots.get(key) === slot) this.slots.delete(key)
        },
        signal,
      ),
    }
    this.slots.set(key, slot)
    return slot.connection
  }

  private async open(
    purpose: Purpose,
    { host, port }: BrokerAddress,
    requestMs: number,
    forget: () => void,
    signal: AbortSignal,
  ): Promise<BrokerConnection> {
    const address = `${host}:${port}`
    const gone = (): void => {
      forget()
      // A broker that comes back may be a newer one.
      this.versions.delete(address)
    }
    try {
      const connection = await BrokerConnection.open(
        this.library,
        this.settings,
        saslOf(this.settings.login, host),
        { host, port, requestMs, maxAnswerBytes: MAX_ANSWER_BYTES[purpose] },
        this.versions.get(address),
        gone,
        signal,
      )
      this.versions.set(address, connection.versions)
      if (this.closed) {
        connection.drop()
        throw new Disconnected('closed here')
      }
      return connection
    } catch (error) {
      gone()
      throw error
    }
  }
}

function keyOf(purpose: Purpose, { host, port }: BrokerAddress): string {
  return `${purpose} ${host}:${port}`
}
