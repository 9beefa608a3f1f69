/** Queues and streams share connection, topology and properties; the rest differs. */
import type { CreateSource } from '../../options/define'
import { isStream } from './check'
import type { AmqpOptions } from './options'
import { QueueSource } from './queue-source'
import { StreamSource } from './stream-source'

export const create: CreateSource<AmqpOptions> = (target) =>
  isStream(target.options) ? new StreamSource(target) : new QueueSource(target)
