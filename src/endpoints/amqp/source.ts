/** Queues and streams share connection, topology and properties; the rest differs. */
import type { CreateSource } from '../../options/define'
import type { AmqpOptions } from './options'
import { QueueSource } from './queue-source'

export const create: CreateSource<AmqpOptions> = (target) => new QueueSource(target)
