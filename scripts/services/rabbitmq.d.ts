import type { Pem } from './kafka'

export interface RabbitmqServer {
  readonly kind: 'rabbitmq' | 'environment'
  /** It has no path; the user is guest where none is given. */
  readonly uri: string
  /**
   * Passwords by name. alice may do everything; carol may read from `readable…`, write to `writable…` and the default
   * exchange, and declare nothing.
   */
  readonly users: { readonly guest: string; readonly alice: string; readonly carol: string }
  readonly port: number
  /** The ports for messages, for messages with TLS, for Erlang's distribution and for the port mapper. */
  readonly ports: readonly number[]
  readonly pid?: number
  readonly dir: string
  readonly log: string
  /**
   * A command of rabbitmqctl for this node. Common ones are evaluated in the node (some milliseconds); the others start
   * rabbitmqctl, which takes a second or two of processor time. Rejects where it fails.
   */
  ctl(...args: string[]): Promise<string>
  /** The value of an Erlang expression in the node, as Erlang writes it: some milliseconds. Rejects where it fails. */
  evaluate(expression: string): Promise<string>
  /** Ends it at once, as a power cut would. The data stay. */
  kill(): Promise<void>
  /** Holds the process still: connections stay, nothing is answered. */
  freeze(): void
  thaw(): void
  /** Starts it again on the same ports, with the same data; also after `kill`. */
  restart(): Promise<void>
  /** Ends it and its port mapper, and removes its data. */
  stop(): Promise<void>
}
export interface SecureRabbitmqServer extends RabbitmqServer {
  /** With TLS, for any login: PLAIN, AMQPLAIN, or EXTERNAL with a client certificate, whose common name is the user. */
  readonly tlsUri: string
  /** Paths of PEM files. `stranger` is signed by an authority that the node does not know. */
  readonly certificates: Pem & {
    readonly ca: string
    readonly clients: { readonly alice: Pem; readonly carol: Pem }
    readonly stranger: Pem
  }
}
export interface RabbitmqOptions {
  readonly dir?: string
  readonly port?: number
  /** A channel whose consumer leaves a delivery unacknowledged for longer is closed, up to a second later. */
  readonly consumerTimeoutMs?: number
  /** More lines of rabbitmq.conf. */
  readonly conf?: readonly string[]
  /** Never the server that the environment names: for tests that kill it. */
  readonly own?: boolean
}
export function startRabbitmq(options: RabbitmqOptions & { readonly secure: true }): Promise<SecureRabbitmqServer>
export function startRabbitmq(options?: RabbitmqOptions): Promise<RabbitmqServer>
export function available(): readonly 'rabbitmq'[]
