export interface Pem {
  readonly cert: string
  readonly key: string
}
export interface TokenAsk {
  readonly sub: string
  /** Lifetime; the default is 3600. */
  readonly seconds?: number
  /** The listener with TLS wants it signed (the default), the one without TLS wants it unsigned. */
  readonly signed?: boolean
  readonly claims?: Readonly<Record<string, unknown>>
}
export interface Right {
  readonly resource: 'TOPIC' | 'GROUP' | 'CLUSTER' | 'TRANSACTIONAL_ID'
  readonly name: string
  readonly prefix?: boolean
  readonly operations: readonly (
    | 'ALL'
    | 'READ'
    | 'WRITE'
    | 'CREATE'
    | 'DELETE'
    | 'ALTER'
    | 'DESCRIBE'
    | 'DESCRIBE_CONFIGS'
    | 'IDEMPOTENT_WRITE'
  )[]
}
export interface KafkaClients {
  /**
   * Resolves once every partition has a leader. A topic has one partition and one replica where no number is given. All
   * topics of a call get the largest number of replicas that one of them asks for.
   */
  createTopics(
    topics: readonly (string | { readonly name: string; readonly partitions?: number; readonly replicas?: number })[],
    configs?: Readonly<Record<string, string | number>>,
  ): Promise<void>
  deleteTopics(topics: readonly string[]): Promise<void>
  /** `partitions` is the number of them afterwards. */
  addPartitions(topic: string, partitions: number): Promise<void>
  /** Sums up the end offsets: the number of records, where there are neither transactions nor compaction. */
  recordCount(topic: string): Promise<number>
  /** Gives rights to a user of a secure node. */
  allow(user: string, rights: readonly Right[]): Promise<void>
  /**
   * Runs one of Kafka's own tools (`org.apache.kafka.tools.TopicCommand`), which takes about a second. `{bootstrap}` in
   * arguments stands for the node's address. Resolves to its output, rejects where it fails.
   */
  tool(main: string, args: readonly string[], options?: { readonly input?: string }): Promise<string>
}
export interface KafkaServer extends KafkaClients {
  readonly kind: 'kafka' | 'environment'
  /** HOST:PORT of the listener without TLS and login; its clients may do everything. */
  readonly bootstrap: string
  readonly port?: number
  readonly pid?: number
  readonly dir?: string
  readonly log?: string
  /** Ends it at once, as a power cut would. The data stay. */
  kill(): Promise<void>
  /** Holds the process still: connections stay, nothing is answered. */
  freeze(): void
  thaw(): void
  /** Starts it again on the same ports, with the same data; also after `kill`. */
  restart(): Promise<void>
  /** Ends it and removes its data. */
  stop(): Promise<void>
}
export interface SecureKafkaServer extends KafkaServer {
  /**
   * HOST:PORT of each. `sasl` and `saslTls` take PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER. Clients of `tls`
   * may do everything. `mutualTls` requires a client certificate.
   */
  readonly listeners: Readonly<Record<'plain' | 'sasl' | 'saslTls' | 'tls' | 'mutualTls', string>>
  /**
   * Passwords by name. alice may do everything; carol may read topics `readable…`, write topics `writable…` and use
   * groups `carol…`.
   */
  readonly users: { readonly alice: string; readonly carol: string }
  /** Paths of PEM files. `stranger` is signed by an authority that the node does not know. */
  readonly certificates: Pem & {
    readonly ca: string
    readonly clients: { readonly alice: Pem; readonly carol: Pem }
    readonly stranger: Pem
  }
  token(ask: TokenAsk): string
}
export interface KafkaOptions {
  readonly dir?: string
  readonly port?: number
  /** Configuration of the broker. */
  readonly properties?: Readonly<Record<string, string | number | boolean>>
  /** Arguments in place of those for a small heap and quick compilation. */
  readonly jvm?: readonly string[]
  /** The host that the listeners without TLS advertise; the default is 127.0.0.1. */
  readonly host?: string
  /** Never the cluster that the environment names: for tests that kill it. */
  readonly own?: boolean
}
export function startKafka(options: KafkaOptions & { readonly secure: true }): Promise<SecureKafkaServer>
export function startKafka(options?: KafkaOptions): Promise<KafkaServer>
export function available(): readonly 'kafka'[]
/** The file of kcat, a peer that shares no code with ours; undefined where it is not installed. */
export function kcat(): string | undefined
