export type Kind = 'kinesalite' | 'kinesis-local' | 'dynalite'
export interface AwsServer {
  readonly kind: Kind | 'environment'
  /** HTTP/1.1 without TLS. */
  readonly endpoint: string
  /** kinesis-local alone: TLS, HTTP/1.1 here too, with a certificate that nobody signed. */
  readonly tlsEndpoint?: string
  readonly region: string
  readonly accessKey: string
  readonly secretKey: string
  readonly pid?: number
  readonly dir?: string
  readonly log?: string
  /**
   * As a power cut of the process: at once. The data stay, but for those of kinesis-local, which has them in memory.
   */
  kill(): Promise<void>
  /** Holds the process still: connections stay, nothing is answered. */
  freeze(): void
  thaw(): void
  /** On the same ports, with the same data; also after `kill`. */
  restart(): Promise<void>
  /** Ends it and removes its data. */
  stop(): Promise<void>
}
export function startKinesis(options?: {
  readonly kind?: 'kinesalite' | 'kinesis-local'
  readonly dir?: string
  readonly port?: number
}): Promise<AwsServer>
export function startDynamodb(options?: {
  readonly kind?: 'dynalite'
  readonly dir?: string
  readonly port?: number
}): Promise<AwsServer>
export function available(): readonly Kind[]
