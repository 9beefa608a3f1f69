export interface Pem {
  readonly cert: string
  readonly key: string
}
export interface TokenAsk {
  readonly sub: string
  /** Until it expires, 3600 where it is not said. */
  readonly seconds?: number
  /** For the listener with TLS (the default); `false`: as the one without wants it. */
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
   * Returns once every partition has a leader. One partition, one replica where no number is given; of several numbers
   * of replicas the largest is for all.
   */
  createTopics(
    topics: readonly (string | { readonly name: string; readonly partitions?: number; readonly replicas?: number })[],
    configs?: Readonly<Record<string, string | number>>,
  ): Promise<void>
  deleteTopics(topics: readonly string[]): Promise<void>
  /** Up to `partitions` in all. */
  addPartitions(topic: string, partitions: number): Promise<void>
  /** One past the last offsets, summed up: records, where there are neither transactions nor compaction. */
  recordCount(topic: string): Promise<number>
  /** Gives rights to a user of a secure node. */
  allow(user: string, rights: readonly Right[]): Promise<void>
  /**
   * One of Kafka's own tools (`org.apache.kafka.tools.TopicCommand`): about a second. `{bootstrap}` in arguments is the
   * node's address. Rejects where it fails.
   */
  tool(main: string, args: readonly string[], options?: { readonly input?: string }): Promise<string>
}
export interface KafkaServer extends KafkaClients {
  readonly kind: 'kafka' | 'environment'
  /** Without TLS and login; whoever comes in here may do everything. */
  readonly bootstrap: string
  readonly port?: number
  readonly pid?: number
  readonly dir?: string
  readonly log?: string
  /** As a power cut of the process: at once. The data stay. */
  kill(): Promise<void>
  /** Holds the process still: connections stay, nothing is answered. */
  freeze(): void
  thaw(): void
  /** On the same ports, with the same data; also after `kill`. */
  restart(): Promise<void>
  /** Ends it and removes its data. */
  stop(): Promise<void>
}
export interface SecureKafkaServer extends KafkaServer {
  /**
   * HOST:PORT. `sasl`, `saslTls`: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER; `tls`: TLS alone, everybody may do
   * everything; `mutualTls`: a client certificate is required.
   */
  readonly listeners: Readonly<Record<'plain' | 'sasl' | 'saslTls' | 'tls' | 'mutualTls', string>>
  /**
   * Password by name. alice may do everything; carol may read topics `readable…`, write topics `writable…`, use groups
   * `carol…`.
   */
  readonly users: { readonly alice: string; readonly carol: string }
  /** Paths of PEM files. `stranger`: of an authority the node does not know. */
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
  /** Of the broker. */
  readonly properties?: Readonly<Record<string, string | number | boolean>>
  /** In place of a small heap and quick compilation. */
  readonly jvm?: readonly string[]
  /** What the listeners without TLS call themselves; 127.0.0.1. */
  readonly host?: string
  /** Not the cluster named in the environment: for tests that kill it. */
  readonly own?: boolean
}
export function startKafka(options: KafkaOptions & { readonly secure: true }): Promise<SecureKafkaServer>
export function startKafka(options?: KafkaOptions): Promise<KafkaServer>
export function available(): readonly 'kafka'[]
/** Kafka's librdkafka console client, a peer that owes nothing to ours; undefined where it is not installed. */
export function kcat(): string | undefined
