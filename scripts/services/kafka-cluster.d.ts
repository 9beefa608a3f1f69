import type { KafkaClients, KafkaServer } from './kafka'

export interface KafkaBroker extends Pick<KafkaServer, 'kill' | 'restart' | 'freeze' | 'thaw' | 'log'> {
  /** From 1 on. */
  readonly id: number
  readonly port: number
}
export interface KafkaCluster extends KafkaClients {
  /** All brokers, with commas. */
  readonly bootstrap: string
  readonly brokers: readonly KafkaBroker[]
  /** Ends it and removes its data. */
  stop(): Promise<void>
}
/** Three where no number is given. `racks`: of the brokers, in their order. */
export function startKafkaCluster(options?: {
  readonly brokers?: number
  readonly racks?: readonly string[]
  readonly properties?: Readonly<Record<string, string | number | boolean>>
}): Promise<KafkaCluster>
