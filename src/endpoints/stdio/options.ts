import { framedSink, framedSource } from '../../options/shared'

export const options = { ...framedSource, ...framedSink }
